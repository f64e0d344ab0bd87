//! A domain as libvirt's XML, and back to its owner. Pure.

use std::fmt::Write;

use model::{BootId, Epoch, VmUid};

use crate::emulation::{ARGUMENTS_NAMESPACE, CODE_CACHE_MIB, CPU_MODEL, memory_arguments};
use crate::types::{DirectBoot, DiskSpec, DomainSpec, NicSpec, Owner};

/// XML namespace of our metadata.
pub const METADATA_NAMESPACE: &str = "https://zhengyun.io/xmlns/domain/1.0";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&apos;")
        .replace('"', "&quot;")
}

/// What a guest sees of its machine and must go on seeing when it moves, whatever is newest or named
/// where it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// Machine type with its version.
    pub machine: Option<String>,
    /// The whole `cpu` element.
    pub cpu: Option<String>,
    /// The whole element of QEMU's own arguments, which say how large its memory is; empty where it has none.
    pub arguments: Option<String>,
}

/// Renders the domain.
pub fn render(spec: &DomainSpec) -> String {
    render_as(spec, &Running::default())
}

/// Renders with what a running domain is.
pub fn render_as(spec: &DomainSpec, running: &Running) -> String {
    let mut xml = String::new();
    let kvm = spec.domain_type == "kvm";
    let (newest, cpu) = platform(spec, kvm);
    let machine = escape(running.machine.as_deref().unwrap_or(newest));
    let cpu = running.cpu.clone().unwrap_or(cpu);
    let (emulated, arguments) = if kvm {
        (String::new(), String::new())
    } else {
        (
            format!("<tcg><tb-cache unit='MiB'>{CODE_CACHE_MIB}</tb-cache></tcg>"),
            memory_arguments(spec.memory_kib),
        )
    };
    let arguments = running.arguments.clone().unwrap_or(arguments);
    // Writing to a String can not fail.
    let _ = write!(
        xml,
        "<domain type='{}' xmlns:qemu='{ARGUMENTS_NAMESPACE}'><name>{}</name><uuid>{}</uuid><metadata>{}</metadata>\
         <memory unit='KiB'>{}</memory><vcpu>{}</vcpu><os><type arch='{}' machine='{machine}'>hvm</type>{}</os>\
         <features><acpi/>{emulated}</features>{cpu}\
         <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash><devices>",
        spec.domain_type,
        escape(&spec.name),
        spec.uuid,
        owner_xml(&spec.owner),
        spec.memory_kib,
        spec.cpus,
        escape(&spec.architecture),
        spec.boot.as_ref().map(boot_xml).unwrap_or_default(),
    );
    for (index, disk) in spec.disks.iter().enumerate() {
        xml.push_str(&disk_xml(disk, index));
    }
    for nic in &spec.nics {
        xml.push_str(&nic_xml(nic));
    }
    xml.push_str("<controller type='usb' model='none'/><memballoon model='none'/>");
    match &spec.console_log {
        Some(file) => {
            let _ = write!(
                xml,
                "<serial type='file'><source path='{}' append='on'/><target port='0'/></serial>",
                escape(&file.display().to_string())
            );
        }
        None => xml.push_str("<serial type='null'><target port='0'/></serial>"),
    }
    xml.push_str("</devices>");
    xml.push_str(&arguments);
    xml.push_str("</domain>");
    xml
}

/// Machine type and processor element.
fn platform(spec: &DomainSpec, kvm: bool) -> (&'static str, String) {
    let arm = spec.architecture == "aarch64";
    let cpu = match (&spec.cpu_model, kvm, arm) {
        // Between Arm hosts only the very same model migrates, and libvirt offers nothing else.
        (_, true, true) => "<cpu mode='host-passthrough'/>".to_owned(),
        (Some(model), true, false) => format!(
            "<cpu mode='custom' match='exact' check='partial'><model fallback='forbid'>{}</model></cpu>",
            escape(model)
        ),
        (None, true, false) => "<cpu mode='host-model'/>".to_owned(),
        (_, false, true) => "<cpu mode='custom'><model>cortex-a57</model></cpu>".to_owned(),
        (model, false, false) => format!(
            "<cpu mode='custom' match='exact'><model fallback='forbid'>{}</model></cpu>",
            escape(model.as_deref().unwrap_or(CPU_MODEL))
        ),
    };
    (if arm { "virt" } else { "q35" }, cpu)
}

fn boot_xml(boot: &DirectBoot) -> String {
    let initrd = boot
        .initrd
        .as_ref()
        .map(|file| format!("<initrd>{}</initrd>", escape(&file.display().to_string())));
    format!(
        "<kernel>{}</kernel>{}<cmdline>{}</cmdline>",
        escape(&boot.kernel.display().to_string()),
        initrd.unwrap_or_default(),
        escape(&boot.command_line)
    )
}

fn disk_xml(disk: &DiskSpec, index: usize) -> String {
    let letter = char::from(b'a' + u8::try_from(index.min(25)).unwrap_or(25));
    let read_only = if disk.read_only { "<readonly/>" } else { "" };
    format!(
        "<disk type='file' device='disk'><driver name='qemu' type='{}' cache='none' io='threads' error_policy='stop' discard='unmap'/>\
         <source file='{}'/><target dev='vd{letter}' bus='virtio'/><serial>{}</serial>{read_only}</disk>",
        disk.format,
        escape(&disk.file.display().to_string()),
        escape(&disk.serial)
    )
}

fn nic_xml(nic: &NicSpec) -> String {
    format!(
        "<interface type='bridge'><mac address='{}'/><source bridge='{}'/><target dev='{}'/><model type='virtio'/>\
         <mtu size='{}'/><rom enabled='no'/></interface>",
        escape(&nic.mac_address),
        escape(&nic.bridge),
        escape(&nic.device),
        nic.mtu
    )
}

fn owner_xml(owner: &Owner) -> String {
    format!(
        "<zy:owner xmlns:zy='{METADATA_NAMESPACE}' vm='{}' namespace='{}' name='{}' bootId='{}' epoch='{}'/>",
        escape(owner.vm.as_str()),
        escape(&owner.namespace),
        escape(&owner.name),
        escape(owner.boot_id.as_str()),
        owner.epoch
    )
}

/// What a domain is that libvirt describes.
pub fn running_from_xml(xml: &str) -> Running {
    Running {
        machine: machine_from_xml(xml),
        cpu: cpu_from_xml(xml),
        arguments: Some(arguments_from_xml(xml).unwrap_or_default().to_owned()),
    }
}

/// The whole element of QEMU's own arguments.
fn arguments_from_xml(xml: &str) -> Option<&str> {
    const END: &str = "</qemu:commandline>";
    let element = &xml[xml.find("<qemu:commandline>")?..];
    Some(&element[..element.find(END)? + END.len()])
}

/// The `cpu` element, which is not `cputune`.
fn cpu_from_xml(xml: &str) -> Option<String> {
    let begin = ["<cpu ", "<cpu>"]
        .iter()
        .filter_map(|tag| xml.find(tag))
        .min()?;
    let element = &xml[begin..];
    let first = element.find('>')?;
    let end = match element[..first].ends_with('/') {
        true => first + 1,
        false => element.find("</cpu>")? + "</cpu>".len(),
    };
    Some(element[..end].to_owned())
}

/// The machine type, with its version.
fn machine_from_xml(xml: &str) -> Option<String> {
    let element = xml.split_once("<type ")?.1.split_once('>')?.0;
    let quoted = element.split_once("machine=")?.1;
    let quote = quoted
        .chars()
        .next()
        .filter(|quote| ['\'', '"'].contains(quote))?;
    Some(quoted[1..].split_once(quote)?.0.to_owned())
}

/// Reads the owner out of a domain's XML, or out of the metadata element alone. None where
/// the element is not there or not whole: such a domain is a stray.
pub fn owner_from_xml(xml: &str) -> Option<Owner> {
    let begin = xml.find("<zy:owner ").or_else(|| xml.find("<owner "))?;
    let element = &xml[begin..begin + xml[begin..].find('>')?];
    let attribute = |name: &str| {
        let quoted = element.split_once(&format!(" {name}="))?.1;
        let quote = quoted
            .chars()
            .next()
            .filter(|quote| ['\'', '"'].contains(quote))?;
        let text = quoted[1..].split_once(quote)?.0;
        Some(
            text.replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&apos;", "'")
                .replace("&quot;", "\"")
                .replace("&amp;", "&"),
        )
    };
    Some(Owner {
        vm: VmUid(attribute("vm")?),
        namespace: attribute("namespace")?,
        name: attribute("name")?,
        boot_id: BootId(attribute("bootId")?),
        epoch: Epoch(attribute("epoch")?.parse().ok()?),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use uuid::Uuid;

    pub(crate) fn spec() -> DomainSpec {
        let uuid = Uuid::from_u128(7);
        DomainSpec {
            uuid,
            name: "oa.db<1>".to_owned(),
            cpus: 1,
            memory_kib: 131_072,
            domain_type: "qemu".to_owned(),
            architecture: "x86_64".to_owned(),
            cpu_model: None,
            boot: None,
            disks: vec![DiskSpec {
                file: "/srv/a&b.raw".into(),
                format: "raw",
                serial: "data".to_owned(),
                read_only: false,
            }],
            nics: vec![],
            console_log: None,
            owner: Owner {
                vm: VmUid(uuid.to_string()),
                namespace: "oa".to_owned(),
                name: "it's \"x\"".to_owned(),
                boot_id: "b".into(),
                epoch: Epoch(3),
            },
        }
    }

    #[test]
    fn a_move_keeps_the_machine_type_of_the_running_domain() {
        let live = "<domain><os firmware='efi'><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os></domain>";
        assert_eq!(machine_from_xml(live).as_deref(), Some("pc-q35-7.2"));
        assert_eq!(running_from_xml("<domain/>").machine, None);
        let there = render_as(&spec(), &running_from_xml(live));
        assert_eq!(machine_from_xml(&there).as_deref(), Some("pc-q35-7.2"));
    }

    #[test]
    fn a_move_keeps_the_processor_that_the_guest_sees() {
        let cpu = "<cpu mode='custom' match='exact' check='full'><model fallback='forbid'>Haswell</model>\
            <feature policy='disable' name='hle'/></cpu>";
        let live = format!("<domain><cputune><shares>1</shares></cputune>{cpu}<clock/></domain>");
        let mut spec = spec();
        spec.cpu_model = Some("Nehalem".to_owned());
        let there = render_as(&spec, &running_from_xml(&live));
        assert!(there.contains(cpu) && !there.contains("Nehalem"), "{there}");
        let short = "<domain><cpu mode='host-passthrough' migratable='on'/><x></x></domain>";
        let cpu = running_from_xml(short).cpu;
        assert_eq!(
            cpu.as_deref(),
            Some("<cpu mode='host-passthrough' migratable='on'/>")
        );
    }

    #[test]
    fn a_move_keeps_the_memory_that_the_guest_has() {
        let started = render(&spec());
        let there = render_as(&spec(), &running_from_xml(&started));
        assert_eq!(arguments_from_xml(&there), arguments_from_xml(&started));
        assert!(arguments_from_xml(&started).is_some());
        // One that an earlier agent started, and one that runs on KVM.
        let there = render_as(&spec(), &running_from_xml("<domain/>"));
        assert_eq!(arguments_from_xml(&there), None);
        let mut spec = spec();
        spec.domain_type = "kvm".to_owned();
        assert_eq!(arguments_from_xml(&render(&spec)), None);
    }

    #[test]
    fn the_pools_model_is_given_and_never_another_instead() {
        let mut spec = spec();
        spec.cpu_model = Some("Haswell".to_owned());
        for kind in ["qemu", "kvm"] {
            spec.domain_type = kind.to_owned();
            let xml = render(&spec);
            assert!(xml.contains("match='exact'"), "{xml}");
            assert!(
                xml.contains("<model fallback='forbid'>Haswell</model>"),
                "{xml}"
            );
        }
    }

    #[test]
    fn the_owner_survives_the_way_there_and_back() {
        let spec = spec();
        assert_eq!(owner_from_xml(&render(&spec)), Some(spec.owner));
    }

    #[test]
    fn names_and_paths_are_escaped() {
        let xml = render(&spec());
        assert!(
            xml.contains("<name>oa.db&lt;1&gt;</name>") && xml.contains("/srv/a&amp;b.raw"),
            "{xml}"
        );
    }

    #[test]
    fn a_domain_without_our_metadata_or_with_half_of_it_has_no_owner() {
        assert_eq!(owner_from_xml("<domain><name>x</name></domain>"), None);
        assert_eq!(owner_from_xml("<zy:owner vm='a' namespace='b'/>"), None);
        assert_eq!(owner_from_xml("<zy:owner vm='a"), None);
    }
}
