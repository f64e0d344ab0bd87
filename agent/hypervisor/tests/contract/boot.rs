//! Guests of a boot sector: what they do is the same at every moment, and nothing of a system disturbs it.

use std::path::Path;

use hypervisor::DiskSpec;

/// Where the firmware looks for the mark of a disk that can be booted.
const BOOT_MARK: (usize, [u8; 2]) = (510, [0x55, 0xaa]);
/// Length of the disk, bytes.
const DISK: usize = 1 << 20;

/// A disk that boots this code, which the firmware loads to 0x7c00.
pub fn boot_disk(file: &Path, code: &[u8]) -> DiskSpec {
    let mut image = vec![0; DISK];
    image[..code.len()].copy_from_slice(code);
    let (place, mark) = BOOT_MARK;
    image[place..place + mark.len()].copy_from_slice(&mark);
    std::fs::write(file, image).expect("the boot disk");
    DiskSpec {
        file: file.to_owned(),
        format: "raw",
        serial: "boot".to_owned(),
        read_only: false,
    }
}

/// A guest that counts on every page between 1 and 60 MiB, round and round: many times a second, in protected mode without
/// paging.
#[rustfmt::skip]
pub const WRITES_ALL_OVER: &[u8] = &[
    0xfa,                               //        cli
    0x31, 0xc0,                         //        xor ax, ax
    0x8e, 0xd8,                         //        mov ds, ax
    0x0f, 0x01, 0x16, 0x50, 0x7c,       //        lgdt [0x7c50]
    0x0f, 0x20, 0xc0,                   //        mov eax, cr0
    0x0c, 0x01,                         //        or al, 1             ; protected mode
    0x0f, 0x22, 0xc0,                   //        mov cr0, eax
    0xea, 0x17, 0x7c, 0x08, 0x00,       //        jmp 0x08:0x7c17      ; the next line, 32 bits from here on
    0x66, 0xb8, 0x10, 0x00,             //        mov ax, 0x10
    0x8e, 0xd8,                         //        mov ds, eax
    0xbf, 0x00, 0x00, 0x10, 0x00,       // round: mov edi, 0x100000    ; 1 MiB
    0xff, 0x07,                         // page:  inc dword [edi]
    0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, //        add edi, 0x1000      ; next page
    0x81, 0xff, 0x00, 0x00, 0xc0, 0x03, //        cmp edi, 0x3c00000   ; 60 MiB
    0x72, 0xf0,                         //        jb page
    0xeb, 0xe9,                         //        jmp round
    0x90, 0x90, 0x90, 0x90,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // 0x7c38: no segment
    0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xcf, 0x00, // 0x08: code, all of memory
    0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xcf, 0x00, // 0x10: data, all of memory
    0x17, 0x00, 0x38, 0x7c, 0x00, 0x00,             // 0x7c50: these three
];
