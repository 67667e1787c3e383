# recast-receive: writes a disk image into the one volume that was allocated for it. See src/image/sink.rs.
use strict; use warnings; use Fcntl; use IO::Handle; use Cwd qw(abs_path); use Digest::SHA; use IPC::Open2;
my (undef, $format, $path, $name, $total, $rest, $from) = @ARGV;
sub refuse { print STDERR "recast-receive: @_\n"; exit 2 }
$format eq "2" or refuse("format $format is not known");
$from <= $total or refuse("the disk has $total bytes, and nothing is left of it from $from on");
my ($stem) = $name =~ m{^(vm-\d+-recast-[\w.-]+?)(?:\.raw)?$} or refuse("$name is no volume of a run");
$path =~ m{^/} && $path =~ m{/\Q$stem\E(?:\.raw)?(?:/|$)} && $path !~ m{/\.\.?(?:/|$)} or refuse("$path is not the place of $name");
for (1 .. 100) { last if -e $path; select(undef, undef, undef, 0.1) }
my $real = abs_path($path);
defined($real) && (-f $real || -b $real) or refuse("$path is no file or device");
my $device = -b $real;
open(my $mounts, "<", "/proc/mounts") or refuse("/proc/mounts: $!");
while (<$mounts>) {
  my ($what) = split(/ /);
  $what =~ m{^/} && -e $what && abs_path($what) eq $real and refuse("$path is mounted");
}
my $gaps = $rest eq "zeros";
$gaps = 0 if $gaps && $device && system("blkdiscard", "-z", "-o", $from, "--", $real) == 0;
sysopen(my $disk, $real, $device ? O_RDWR | O_EXCL : O_RDWR) or refuse("$path: $!");
my $size = sysseek($disk, 0, 2) || 0;
$size >= $total or refuse("$path has $size bytes, and the disk has $total");
sub take {
  my ($want) = @_;
  my $got = "";
  while (length($got) < $want) {
    my $read = sysread(STDIN, $got, $want - length($got), length($got));
    defined($read) or refuse("stdin: $!");
    $read or do { print STDERR "recast-receive: stdin ended before its end\n"; exit 3 };
  }
  return $got;
}
sub put {
  my ($at, $data) = @_;
  sysseek($disk, $at, 0) or refuse("$path: $!");
  for (my $done = 0; $done < length($data);) {
    my $wrote = syswrite($disk, $data, length($data) - $done, $done);
    defined($wrote) or refuse("$path: $!");
    $done += $wrote;
  }
}
my $block = "\0" x 1048576;
sub blank {
  my ($from, $to) = @_;
  while ($from < $to) {
    my $length = $to - $from > 1048576 ? 1048576 : $to - $from;
    put($from, substr($block, 0, $length));
    $from += $length;
  }
}
take(8) eq "RECAST\0\1" && unpack("Q<", take(8)) == $total or refuse("stdin is no disk of $total bytes");
my ($end, $bytes, $told, $syncing, $checked, @extents) = ($from, 0, $from, 0, 0);
# OpenSSL uses what the processor has for it, Digest::SHA does not. 1031 is F_SETPIPE_SZ.
$SIG{PIPE} = "IGNORE";
my ($sha, $answer, $into);
my $openssl = eval { open2($answer, $into, "openssl", "dgst", "-sha256", "-r") };
if ($openssl) { fcntl($into, 1031, 1048576) }
else { $sha = Digest::SHA->new(256) }
sub digest {
  my ($data) = @_;
  return $sha->add($data) if $sha;
  for (my $done = 0; $done < length($data);) {
    my $wrote = syswrite($into, $data, length($data) - $done, $done);
    defined($wrote) or refuse("openssl: $!");
    $done += $wrote;
  }
}
# Reads back what was stored and was not read back yet.
sub look_back {
  for (@extents[$checked .. $#extents]) {
    my ($offset, $length) = @$_;
    sysseek($disk, $offset, 0) or refuse("$path: $!");
    my $data = "";
    while (length($data) < $length) {
      sysread($disk, $data, $length - length($data), length($data)) or refuse("$path can not be read back: $!");
    }
    my $blocks = "";
    for (my $at = 0; $at < $length; $at += 4096) {
      $blocks .= pack("Q<", $offset + $at) . substr($data, $at, 4096);
    }
    digest($blocks);
  }
}
# How the process ended that had it brought to the disk; one that refused said why itself.
sub settled {
  $? and refuse($? == 256 ? "$path: the disk does not keep what it is given" : "$path: it was not read back");
}
my $beside = $openssl && !$device;
# Has all before an offset brought to the disk, beside the writing, and says so. What is in a file is read back at once;
# of a device only at the end, when its buffers can be dropped. A process of its own has a place of its own in the file.
sub settle {
  my ($at) = @_;
  if ($syncing) {
    waitpid($syncing, 1) or return;
    settled();
  }
  $syncing = fork();
  return $syncing = 0 if !defined($syncing);
  if ($syncing) {
    $told = $at;
    $checked = @extents if $beside;
    return;
  }
  $disk->sync or exit 1;
  syswrite(STDOUT, "recast-receive 2 at $at $bytes\n");
  if ($beside) {
    sysopen($disk, $real, O_RDONLY) or refuse("$path: $!");
    look_back();
  }
  exit 0;
}
my $last = 0;
while (1) {
  my ($offset, $length) = unpack("Q<L<", take(12));
  if (!$length) { $offset == @extents or refuse("records are missing"); last }
  my $kept = $length & 0x80000000;
  $length &= 0x7fffffff;
  $length && $length <= 1048576 && $offset % 4096 == 0 && $offset >= $last && $offset + $length <= $total
    && ($kept ? $offset + $length <= $from : $offset >= $end)
    or refuse("a record of $length bytes at $offset does not fit");
  push(@extents, [$offset, $length]);
  $last = $offset + $length;
  $bytes += $length;
  next if $kept;
  my $data = take($length);
  blank($end, $offset) if $gaps;
  put($offset, $data);
  $end = $last;
  settle($end) if $end - $told >= 33554432;
}
if ($syncing) {
  waitpid($syncing, 0);
  settled();
}
blank($end, $total) if $gaps;
$disk->sync or refuse("$path: $!");
# BLKFLSBUF: what is read back comes from the disk.
ioctl($disk, 0x1261, 0) if $device;
look_back();
digest(pack("Q<", $total));
my $digest;
if ($sha) { $digest = $sha->hexdigest }
else {
  close($into);
  ($digest) = (<$answer> // "") =~ m{^([0-9a-f]{64})\b} or refuse("openssl made no digest");
  waitpid($openssl, 0);
}
close($disk) or refuse("$path: $!");
syswrite(STDOUT, "recast-receive 2 stored " . scalar(@extents) . " $bytes $digest\n");
