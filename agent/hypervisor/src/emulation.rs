//! What a guest needs that QEMU emulates in software, without KVM: tests, labs, evaluation. Pure.

/// Code cache of the emulator; without a bound each guest takes hundreds of MiB more.
pub(crate) const CODE_CACHE_MIB: u32 = 32;
/// Processor model under emulation; newer ones cost time for nothing.
pub(crate) const CPU_MODEL: &str = "Nehalem";
/// libvirt's namespace for arguments that are handed to QEMU as they stand.
pub(crate) const ARGUMENTS_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// What libvirt rounds a guest's memory up to.
const MEBIBYTE_KIB: u64 = 1024;
/// What is taken off. QEMU takes memory in steps of 8 KiB.
const ODD_KIB: u64 = 8;

/// Gives the guest memory that is no multiple of 256 KiB, 8 KiB less than asked for.
///
/// QEMU before 9.0, Debian 12's among it, loses writes of an emulated guest that moves: it reads which
/// pages were written 64 at a time, and there forgets to tell the processor's translation cache that they count
/// as unwritten again, so that later writes to them go unnoticed until that cache is emptied (mended in QEMU 9.0 by "physmem:
/// Fix migration dirty bitmap coherency with TCG memory access"). Memory that is no multiple of 64 pages takes another way,
/// page by page, which tells it. libvirt rounds to whole MiB; so the memory is named to QEMU itself, and what libvirt
/// reserved is never touched. Decision 0009 has what was measured.
pub(crate) fn memory_arguments(memory_kib: u64) -> String {
    let kib = memory_kib.div_ceil(MEBIBYTE_KIB).max(1) * MEBIBYTE_KIB - ODD_KIB;
    let arguments = [
        "-object".to_owned(),
        format!("memory-backend-ram,id=guest-memory,size={kib}k"),
        "-machine".to_owned(),
        "memory-backend=guest-memory".to_owned(),
        "-m".to_owned(),
        format!("size={kib}k"),
    ];
    let each = arguments.map(|argument| format!("<qemu:arg value='{argument}'/>"));
    format!("<qemu:commandline>{}</qemu:commandline>", each.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_never_a_multiple_of_64_pages_and_named_alike_everywhere() {
        for (asked, given) in [(131_072, 131_064), (131_073, 132_088), (1, 1016), (0, 1016)] {
            let xml = memory_arguments(asked);
            assert_eq!(xml.matches(&format!("size={given}k")).count(), 2, "{xml}");
            assert_ne!(given % 256, 0);
        }
    }
}
