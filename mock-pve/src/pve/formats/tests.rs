use super::*;

#[test]
fn each_format_refuses_in_its_own_words() {
    for (format, fits, refused, text) in [
        ("pve-userid", "a@pve", "ab", "user name 'ab' is too short\n"),
        ("pve-userid", "a@b@pve", "no at", "value 'no at' does not look like a valid user name\n"),
        ("pve-userid", "x!y@pam", "x@1st", "value 'x@1st' does not look like a valid user name\n"),
        ("pve-realm", "my.realm", "1st", "value does not look like a valid realm\n"),
        ("mac-prefix", "02:AB:", "03:AB", "value is not a valid unicast MAC address prefix\n"),
        ("ipv4mask", "255.255.240.0", "255.0.255.0", "value does not look like a valid IP netmask\n"),
        (
            "storage-pair-list",
            "1",
            "local:no!",
            "entry 'local:no!' contains invalid ID - storage ID 'no!' contains illegal characters\n\n\n",
        ),
        ("pve-ha-group-node-list", "pve1,pve2:2", "pve1:x", "value does not look like a valid ha group node\n"),
        ("pve-day-of-week-list", "mon,sun", "monday", "invalid day 'monday'\n"),
        ("pve-replication-job-id", "100-0", "100", "invalid replication job id '100'\n"),
        ("pve-sdn-zone-id", "inner", "toolongname", "zone ID 'toolongname' can't be more length than 8 characters\n"),
        ("pve-sdn-vnet-id", "net1", "a-b", "vnet ID 'a-b' contains illegal characters\n"),
    ] {
        assert_eq!(check_format(format, fits), Ok(()), "{format}: {fits}");
        assert_eq!(check_format(format, refused), Err(text.to_owned()), "{format}: {refused}");
    }
}
