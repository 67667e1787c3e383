//! Bytes of the SSH File Transfer Protocol, version 3 (draft-ietf-secsh-filexfer-02).
//!
//! Must not know: files.

/// The longest packet that is taken, as OpenSSH's server has it.
pub(super) const LONGEST: usize = 256 * 1024;

/// How an order went (`SSH_FX_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Fine = 0,
    End = 1,
    Missing = 2,
    Denied = 3,
    Failure = 4,
    Malformed = 5,
    Unsupported = 8,
}

impl Status {
    /// The text that OpenSSH's server sends beside it.
    fn text(self) -> &'static str {
        match self {
            Self::Fine => "Success",
            Self::End => "End of file",
            Self::Missing => "No such file",
            Self::Denied => "Permission denied",
            Self::Failure => "Failure",
            Self::Malformed => "Bad message",
            Self::Unsupported => "Operation unsupported",
        }
    }
}

impl From<std::io::Error> for Status {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::Missing,
            std::io::ErrorKind::PermissionDenied => Self::Denied,
            std::io::ErrorKind::UnexpectedEof => Self::End,
            _ => Self::Failure,
        }
    }
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Bytes.
    pub(super) size: Option<u64>,
    /// Type and permission bits.
    pub(super) mode: Option<u32>,
    /// When it was read and written, in Unix time.
    pub(super) times: Option<(u32, u32)>,
}

impl Attributes {
    const SIZE: u32 = 1;
    const OWNER: u32 = 2;
    const MODE: u32 = 4;
    const TIMES: u32 = 8;

    /// Whether it is a folder.
    pub(super) fn is_folder(self) -> bool {
        self.mode.is_some_and(|mode| mode & 0o170_000 == 0o040_000)
    }
}

/// A packet that is read from its front; what is too short is malformed.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Status> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Status::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Status> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn number(&mut self) -> Result<u32, Status> {
        self.take(4)?.try_into().map(u32::from_be_bytes).map_err(|_| Status::Malformed)
    }

    pub(super) fn long(&mut self) -> Result<u64, Status> {
        self.take(8)?.try_into().map(u64::from_be_bytes).map_err(|_| Status::Malformed)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Status> {
        let length = usize::try_from(self.number()?).map_err(|_| Status::Malformed)?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Result<String, Status> {
        self.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    pub(super) fn attributes(&mut self) -> Result<Attributes, Status> {
        let flags = self.number()?;
        let mut attributes = Attributes::default();
        if flags & Attributes::SIZE > 0 {
            attributes.size = Some(self.long()?);
        }
        if flags & Attributes::OWNER > 0 {
            // Everything is root's.
            self.long()?;
        }
        if flags & Attributes::MODE > 0 {
            attributes.mode = Some(self.number()?);
        }
        if flags & Attributes::TIMES > 0 {
            attributes.times = Some((self.number()?, self.number()?));
        }
        Ok(attributes)
    }
}

/// A packet that is being made; its length comes in front at the end.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// An answer of a kind to an order.
    pub(super) fn answer(kind: u8, id: u32) -> Self {
        Self(vec![0, 0, 0, 0, kind]).number(id)
    }

    /// What the server can do.
    pub(super) fn version() -> Self {
        let made = Self(vec![0, 0, 0, 0, 2]).number(3);
        ["posix-rename@openssh.com", "fsync@openssh.com"].iter().fold(made, |made, name| made.text(name).text("1"))
    }

    /// How an order went.
    pub(super) fn status(id: u32, status: Status) -> Self {
        Self::answer(101, id).number(status as u32).text(status.text()).text("")
    }

    pub(super) fn number(mut self, number: u32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        // Nothing longer than a packet is ever sent.
        self.0.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.0.extend(bytes);
        self
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    pub(super) fn attributes(mut self, attributes: Attributes) -> Self {
        let flag = |there: bool, flag: u32| if there { flag } else { 0 };
        let Attributes { size, mode, times } = attributes;
        self = self.number(
            flag(size.is_some(), Attributes::SIZE)
                | Attributes::OWNER
                | flag(mode.is_some(), Attributes::MODE)
                | flag(times.is_some(), Attributes::TIMES),
        );
        if let Some(size) = size {
            self.0.extend(size.to_be_bytes());
        }
        self = self.number(0).number(0);
        if let Some(mode) = mode {
            self = self.number(mode);
        }
        if let Some((read, written)) = times {
            self = self.number(read).number(written);
        }
        self
    }

    /// The whole packet.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_what_is_short_is_malformed() {
        let attributes = Attributes { size: Some(7), mode: Some(0o100_644), times: Some((1, 2)) };
        let packet = Writer::answer(105, 9).text("x").attributes(attributes).finish();
        let mut reader = Reader(&packet);
        assert_eq!(reader.number().unwrap() as usize, packet.len() - 4);
        assert_eq!((reader.byte(), reader.number(), reader.text()), (Ok(105), Ok(9), Ok("x".to_owned())));
        assert_eq!(reader.attributes(), Ok(attributes));
        assert!(reader.0.is_empty() && !attributes.is_folder());
        for length in 0..4 {
            assert_eq!(Reader(&packet[..length]).number(), Err(Status::Malformed));
        }
        assert_eq!(Reader(&[0, 0, 0, 9, 1]).bytes(), Err(Status::Malformed));
    }
}
