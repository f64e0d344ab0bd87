//! What the host can run, from libvirt's capabilities.

use virt::connect::Connect;
use virt::error::Error;

use crate::types::Node;

/// Reads the host's facts; `chosen` overrides the domain type.
pub fn read(connect: &Connect, chosen: Option<String>) -> Result<Node, Error> {
    let xml = connect.capabilities()?;
    let info = connect.node_info()?;
    let host = xml.split("</host>").next().unwrap_or_default();
    let architecture = text(host, "arch").unwrap_or_default();
    let kvm = guests(&xml, &architecture).contains("<domain type='kvm'");
    let domain_type = chosen.unwrap_or_else(|| if kvm { "kvm" } else { "qemu" }.to_owned());
    let offers =
        connect.domain_capabilities(None, Some(&architecture), None, Some(&domain_type), 0)?;
    Ok(Node {
        cpu_models: usable_models(&offers),
        cpu_model: text(host, "model").unwrap_or_default(),
        cpus: info.cpus,
        memory_kib: info.memory,
        domain_type,
        versions: (
            version(connect.lib_version()?),
            version(connect.hyp_version()?),
        ),
        architecture,
    })
}

/// The part of the capabilities about guests of the host's own architecture.
fn guests<'a>(xml: &'a str, architecture: &str) -> &'a str {
    let mark = format!("<arch name='{architecture}'>");
    xml.split(&mark)
        .nth(1)
        .and_then(|rest| rest.split("</arch>").next())
        .unwrap_or_default()
}

/// The models of mode `custom` that guests can really be given on this machine, sorted.
fn usable_models(capabilities: &str) -> Vec<String> {
    let cpu = capabilities
        .split_once("<cpu>")
        .map_or("", |(_, rest)| rest);
    let cpu = cpu.split("</cpu>").next().unwrap_or_default();
    let custom = cpu.split("<mode ").find(|mode| {
        let element = mode.split('>').next().unwrap_or_default();
        element.contains("name='custom'") && element.contains("supported='yes'")
    });
    let custom = custom.unwrap_or_default();
    let custom = custom.split("</mode>").next().unwrap_or_default();
    let models = custom.split("<model ").skip(1).filter_map(|model| {
        let (attributes, rest) = model.split_once('>')?;
        let usable = attributes.contains("usable='yes'");
        usable.then(|| rest.split('<').next().unwrap_or_default().to_owned())
    });
    let models: std::collections::BTreeSet<String> = models.collect();
    models.into_iter().collect()
}

/// Text of the first element of that name.
fn text(xml: &str, element: &str) -> Option<String> {
    let rest = xml.split_once(&format!("<{element}>"))?.1;
    Some(rest.split_once('<')?.0.to_owned())
}

/// `9.0.0` of 9000000.
fn version(number: u32) -> String {
    format!(
        "{}.{}.{}",
        number / 1_000_000,
        number / 1_000 % 1_000,
        number % 1_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_usable_models_of_mode_custom_are_offered() {
        let xml = "<domainCapabilities><cpu>\
            <mode name='host-passthrough' supported='yes'><enum name='hostPassthroughMigratable'/></mode>\
            <mode name='host-model' supported='yes'><model fallback='forbid'>EPYC-Rome</model></mode>\
            <mode name='custom' supported='yes'>\
              <model usable='no' vendor='Intel'>Skylake-Server</model>\
              <model usable='yes' vendor='unknown'>qemu64</model>\
              <model usable='yes' vendor='Intel' canonical='Nehalem-v1'>Nehalem</model>\
            </mode></cpu><devices><x><model usable='yes'>no</model></x></devices></domainCapabilities>";
        assert_eq!(usable_models(xml), ["Nehalem", "qemu64"]);
        let none = "<cpu><mode name='custom' supported='no'/></cpu>";
        assert!(usable_models(none).is_empty() && usable_models("").is_empty());
    }

    #[test]
    fn kvm_counts_only_for_the_hosts_own_architecture() {
        let xml = "<host><cpu><arch>x86_64</arch><model>Nehalem</model></cpu></host>\
            <guest><arch name='aarch64'><domain type='kvm'/></arch></guest>\
            <guest><arch name='x86_64'><domain type='qemu'/></arch></guest>";
        assert!(!guests(xml, "x86_64").contains("kvm"));
        assert_eq!(text(xml, "model").as_deref(), Some("Nehalem"));
        assert_eq!(version(9_000_001), "9.0.1");
    }
}
