//! The superblock of ext4 (Documentation/filesystems/ext4/super.rst): its magic number and label.

/// Where the superblock lies on the device.
pub const OFFSET: u64 = 1024;

/// Length of what [`label`] reads.
pub const LENGTH: usize = 1024;

/// Label of the file system whose superblock this is; `None` if it is none. A label that fills its 16 bytes has no NUL behind.
pub fn label(superblock: &[u8; LENGTH]) -> Option<&[u8]> {
    // s_magic, s_volume_name
    if superblock[0x38..0x3a] != [0x53, 0xef] {
        return None;
    }
    superblock[0x78..0x88].split(|byte| *byte == 0).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(name: &[u8]) -> [u8; LENGTH] {
        let mut block = [0xffu8; LENGTH];
        block[0x38..0x3a].copy_from_slice(&0xef53u16.to_le_bytes());
        block[0x78..0x88].fill(0);
        block[0x78..0x78 + name.len()].copy_from_slice(name);
        block
    }

    #[test]
    fn the_label_ends_at_nul_or_after_16_bytes() {
        assert_eq!(label(&superblock(b"amphora-root")), Some(b"amphora-root".as_slice()));
        assert_eq!(label(&superblock(b"1234567890123456")), Some(b"1234567890123456".as_slice()));
        assert_eq!(label(&superblock(b"")), Some(b"".as_slice()));
    }

    #[test]
    fn another_file_system_has_none() {
        let mut block = superblock(b"amphora-root");
        block[0x39] = 0;
        assert_eq!(label(&block), None);
        assert_eq!(label(&[0; LENGTH]), None);
    }
}
