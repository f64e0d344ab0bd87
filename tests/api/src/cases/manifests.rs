//! Manifests and edits that people get wrong: each is refused with a sentence that names
//! field, value or remedy.

/// A manifest, or an edit of a standing object, that must be refused.
#[derive(Clone, Copy, Debug)]
pub struct BadManifest {
    /// What is wrong with it.
    pub what: &'static str,
    /// The manifest (or for edits: the merge patch), as YAML.
    pub yaml: &'static str,
    /// Part of the sentence that the person reads.
    pub sentence: &'static str,
}

macro_rules! bad {
    ($what:literal, $yaml:literal, $sentence:literal) => {
        BadManifest {
            what: $what,
            yaml: $yaml,
            sentence: $sentence,
        }
    };
}

/// Manifests that must be refused at `kubectl apply`.
pub fn bad_manifests() -> Vec<BadManifest> {
    vec![
        bad!(
            "a word where a number belongs",
            "{apiVersion: zhengyun.io/v1alpha1, kind: Flavor, metadata: {name: f}, spec: {cpu: four, memory: 8Gi}}",
            "spec.cpu"
        ),
        bad!(
            "a size without unit",
            "{apiVersion: zhengyun.io/v1alpha1, kind: Flavor, metadata: {name: f}, spec: {cpu: 4, memory: '8'}}",
            "spec.memory"
        ),
        bad!(
            "no processors",
            "{apiVersion: zhengyun.io/v1alpha1, kind: Flavor, metadata: {name: f}, spec: {cpu: 0, memory: 8Gi}}",
            "greater than or equal to 1"
        ),
        bad!(
            "a field left out",
            "{apiVersion: zhengyun.io/v1alpha1, kind: Flavor, metadata: {name: f}, spec: {cpu: 4}}",
            "spec.memory: Required value"
        ),
        bad!(
            "a word that is none of the zones",
            "{apiVersion: zhengyun.io/v1alpha1, kind: HostPool, metadata: {name: p}, spec: {zones: [Public], architecture: x86_64}}",
            "supported values: \"Common\""
        ),
        bad!(
            "two zones without the exception",
            "{apiVersion: zhengyun.io/v1alpha1, kind: HostPool, metadata: {name: p}, spec: {zones: [Common, Dedicated], architecture: x86_64}}",
            "state the approved exception in sharedZonesReason"
        ),
        bad!(
            "a processor model where guests always see the host's",
            "{apiVersion: zhengyun.io/v1alpha1, kind: HostPool, metadata: {name: p}, spec: {zones: [Common], architecture: aarch64, cpuModel: Kunpeng-920}}",
            "guests on aarch64 always see their host's own model; leave it out"
        ),
        bad!(
            "overcommit past sense",
            "{apiVersion: zhengyun.io/v1alpha1, kind: HostPool, metadata: {name: p}, spec: {zones: [Common], architecture: x86_64, memoryOvercommitPercent: 900}}",
            "less than or equal to 200"
        ),
        bad!(
            "more failures at once than are proven",
            "{apiVersion: zhengyun.io/v1alpha1, kind: HostPool, metadata: {name: p}, spec: {zones: [Common], architecture: x86_64, failuresToTolerate: 2}}",
            "failuresToTolerate: more than one failure at once can not be proven; write 1, or 0"
        ),
        bad!(
            "a subnet that is none",
            "{apiVersion: zhengyun.io/v1alpha1, kind: Network, metadata: {name: n}, spec: {zone: Common, vxlan: {vni: 5}, subnets: [{cidr: 10.20.0.0/33}]}}",
            "not a network in CIDR notation"
        ),
        bad!(
            "a gateway outside its subnet",
            "{apiVersion: zhengyun.io/v1alpha1, kind: Network, metadata: {name: n}, spec: {zone: Common, vxlan: {vni: 5}, subnets: [{cidr: 10.20.0.0/24, gateway: 10.21.0.1}]}}",
            "must be an address inside cidr"
        ),
        bad!(
            "VXLAN and VLAN at once",
            "{apiVersion: zhengyun.io/v1alpha1, kind: Network, metadata: {name: n}, spec: {zone: Common, vxlan: {vni: 5}, vlan: {id: 5}, subnets: [{cidr: 10.20.0.0/24}]}}",
            "set exactly one of the two"
        ),
        bad!(
            "two IPv4 subnets",
            "{apiVersion: zhengyun.io/v1alpha1, kind: Network, metadata: {name: n}, spec: {zone: Common, vxlan: {vni: 5}, subnets: [{cidr: 10.20.0.0/24}, {cidr: 10.21.0.0/24}]}}",
            "at most one IPv4 and one IPv6"
        ),
        bad!(
            "a pool path that climbs",
            "{apiVersion: zhengyun.io/v1alpha1, kind: StoragePool, metadata: {name: s}, spec: {kind: Directory, path: /srv/../etc, shared: true}}",
            "absolute path without"
        ),
        bad!(
            "an image over ftp",
            "{apiVersion: zhengyun.io/v1alpha1, kind: Image, metadata: {name: i}, spec: {architecture: x86_64, minimumSize: 1Gi, disk: {url: 'ftp://a/b', sha256: '0000000000000000000000000000000000000000000000000000000000000000'}}}",
            "must begin with http:// or https://"
        ),
        bad!(
            "an image with a short digest",
            "{apiVersion: zhengyun.io/v1alpha1, kind: Image, metadata: {name: i}, spec: {architecture: x86_64, minimumSize: 1Gi, disk: {url: 'http://a/b', sha256: abc}}}",
            "64 lower-case hexadecimal digits"
        ),
        bad!(
            "a Redfish address that is no URL",
            "{apiVersion: zhengyun.io/v1alpha1, kind: Host, metadata: {name: h}, spec: {pool: main, managementAddress: 10.0.0.9, bmcs: [{protocol: Redfish, address: 10.0.0.9, credentials: {name: s}}]}}",
            "a Redfish address is a URL"
        ),
        bad!(
            "a second policy",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: mine}, spec: {}}",
            "the site has one policy, named 'default'"
        ),
        bad!(
            "timers that contradict each other",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: default}, spec: {failover: {leaseIntervalSeconds: 20, unreachableAfterSeconds: 8}}}",
            "must be more than leaseIntervalSeconds + 1"
        ),
        bad!(
            "a Lease interval of nothing",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: default}, spec: {failover: {leaseIntervalSeconds: 0}}}",
            "leaseIntervalSeconds: safe is 1 to 14; outside of that the API server drowns"
        ),
        bad!(
            "a time-out of a day",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: default}, spec: {failover: {unreachableAfterSeconds: 86400, fenceIsolatedAfterSeconds: 86400}}}",
            "unreachableAfterSeconds: safe is 3 to 600; outside of that a short stall"
        ),
        bad!(
            "more attempts than an intent lasts",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: default}, spec: {failover: {fenceAttempts: 7}}}",
            "fenceAttempts: safe is 1 to 6; outside of that"
        ),
        bad!(
            "an isolated host that is fenced sooner than a dead one",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: default}, spec: {failover: {unreachableAfterSeconds: 60}}}",
            "must be at least unreachableAfterSeconds"
        ),
        bad!(
            "a negative contract",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: default}, spec: {failover: {contractSeconds: -5}}}",
            "contractSeconds: safe is 6 to 43; outside of that"
        ),
        bad!(
            "a longest wait below the first",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: default}, spec: {recovery: {restartBackOffSeconds: 60, restartBackOffMaximumSeconds: 10}}}",
            "must be at least restartBackOffSeconds"
        ),
        bad!(
            "probes that slow down in trouble",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: default}, spec: {probes: {intervalMilliseconds: 1000, busyIntervalMilliseconds: 5000}}}",
            "must be at most intervalMilliseconds"
        ),
        bad!(
            "a move that may take a second",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: default}, spec: {migration: {timeoutSeconds: 1}}}",
            "timeoutSeconds: safe is 10 to 86400; outside of that"
        ),
        bad!(
            "a memory fault without any error",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: default}, spec: {thresholds: {correctedMemoryErrors: 0}}}",
            "correctedMemoryErrors: safe is 1 to 100000; outside of that a host without any error"
        ),
        bad!(
            "a timer that is no number",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: default}, spec: {failover: {contractSeconds: soon}}}",
            "must be of type integer"
        ),
        bad!(
            "a timer beyond all numbers",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: default}, spec: {failover: {contractSeconds: 99999999999999}}}",
            "contractSeconds"
        ),
        bad!(
            "retention below the law",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: default}, spec: {incidentRetentionDays: 179}}",
            "incidentRetentionDays: safe is 180 to 3650; outside of that the law"
        ),
        bad!(
            "two tiers of one name",
            "{apiVersion: zhengyun.io/v1alpha1, kind: BusinessSystem, metadata: {name: b, namespace: oa-office}, spec: {displayName: b, tiers: [{name: web, flavor: small, image: linux, networks: [common], storagePool: shared}, {name: web, flavor: small, image: linux, networks: [common], storagePool: shared}]}}",
            "Duplicate value"
        ),
        bad!(
            "an endpoint of no tier",
            "{apiVersion: zhengyun.io/v1alpha1, kind: BusinessSystem, metadata: {name: b, namespace: oa-office}, spec: {displayName: b, tiers: [{name: web, flavor: small, image: linux, networks: [common], storagePool: shared}], endpoints: [{name: e, tier: db}]}}",
            "names a tier that spec.tiers does not have"
        ),
        bad!(
            "cloud-init twice",
            "{apiVersion: zhengyun.io/v1alpha1, kind: BusinessSystem, metadata: {name: b, namespace: oa-office}, spec: {displayName: b, tiers: [{name: web, flavor: small, image: linux, networks: [common], storagePool: shared, cloudInit: {userData: x, secret: {name: s}}}]}}",
            "set exactly one of userData and secret"
        ),
        bad!(
            "no tiers",
            "{apiVersion: zhengyun.io/v1alpha1, kind: BusinessSystem, metadata: {name: b, namespace: oa-office}, spec: {displayName: b, tiers: []}}",
            "should have at least 1 items"
        ),
        bad!(
            "one volume attached twice",
            "{apiVersion: zhengyun.io/v1alpha1, kind: VirtualMachine, metadata: {name: v, namespace: oa-office}, spec: {cpu: 1, memory: 128Mi, image: linux, networks: [common], disks: [{name: a, volume: x}, {name: b, volume: x}]}}",
            "attach it once"
        ),
        bad!(
            "an impossible size",
            "{apiVersion: zhengyun.io/v1alpha1, kind: VirtualMachine, metadata: {name: v, namespace: oa-office}, spec: {cpu: 1000, memory: 128Mi, image: linux, networks: [common], disks: [{name: a, volume: x}]}}",
            "less than or equal to 256"
        ),
        bad!(
            "a duplicate name",
            "{apiVersion: zhengyun.io/v1alpha1, kind: VirtualMachine, metadata: {name: vm1, namespace: oa-office}, spec: {cpu: 1, memory: 128Mi, image: linux, networks: [common], disks: [{name: a, volume: x}]}}",
            "already exists"
        ),
        bad!(
            "a rule that names every VM",
            "{apiVersion: zhengyun.io/v1alpha1, kind: VirtualMachine, metadata: {name: v, namespace: oa-office}, spec: {cpu: 1, memory: 128Mi, image: linux, networks: [common], disks: [{name: a, volume: x}], affinity: [{kind: Apart, matchLabels: {}}]}}",
            "affinity.matchLabels: name at least one label"
        ),
        bad!(
            "a host name past its bound",
            "{apiVersion: zhengyun.io/v1alpha1, kind: Host, metadata: {name: host-with-a-name-that-is-much-longer-than-forty}, spec: {pool: main, managementAddress: 10.0.0.9}}",
            "at most 40 characters"
        ),
        bad!(
            "a tier's name in capitals",
            "{apiVersion: zhengyun.io/v1alpha1, kind: BusinessSystem, metadata: {name: b, namespace: oa-office}, spec: {displayName: b, tiers: [{name: Web, flavor: small, image: linux, networks: [common], storagePool: shared}]}}",
            "tiers.name: use lower-case letters"
        ),
        bad!(
            "a data disk's name in capitals",
            "{apiVersion: zhengyun.io/v1alpha1, kind: BusinessSystem, metadata: {name: b, namespace: oa-office}, spec: {displayName: b, tiers: [{name: web, dataDisks: [{name: Data, size: 1Gi}], flavor: small, image: linux, networks: [common], storagePool: shared}]}}",
            "dataDisks.name: use lower-case letters"
        ),
        bad!(
            "an endpoint's path without its slash",
            "{apiVersion: zhengyun.io/v1alpha1, kind: BusinessSystem, metadata: {name: b, namespace: oa-office}, spec: {displayName: b, tiers: [{name: web, flavor: small, image: linux, networks: [common], storagePool: shared}], endpoints: [{name: e, tier: web, path: login}]}}",
            "endpoints.path: must begin with '/'"
        ),
        bad!(
            "a system's name past its bound",
            "{apiVersion: zhengyun.io/v1alpha1, kind: BusinessSystem, metadata: {name: a-business-system-whose-name-is-longer-than-forty, namespace: oa-office}, spec: {displayName: b, tiers: [{name: web, flavor: small, image: linux, networks: [common], storagePool: shared}]}}",
            "at most 40 characters, as VM names are built from it"
        ),
        bad!(
            "a department's name past its bound",
            "{apiVersion: zhengyun.io/v1alpha1, kind: Department, metadata: {name: a-department-whose-stable-id-is-longer-than-fifty-characters}, spec: {displayName: d}}",
            "at most 50 characters; use a short stable id"
        ),
        bad!(
            "a VM's name past its bound",
            "{apiVersion: zhengyun.io/v1alpha1, kind: VirtualMachine, metadata: {name: a-virtual-machine-with-a-name-that-is-longer-than-sixty-three-letters, namespace: oa-office}, spec: {cpu: 1, memory: 128Mi, image: linux, networks: [common], disks: [{name: a, volume: x}]}}",
            "at most 63 characters; shorten it"
        ),
        bad!(
            "an initrd without its kernel",
            "{apiVersion: zhengyun.io/v1alpha1, kind: Image, metadata: {name: i}, spec: {architecture: x86_64, minimumSize: 1Gi, disk: {url: 'http://a/b', sha256: '0000000000000000000000000000000000000000000000000000000000000000'}, initrd: {url: 'http://a/c', sha256: '0000000000000000000000000000000000000000000000000000000000000000'}}}",
            "initrd: needs kernel; set kernel as well"
        ),
        bad!(
            "heartbeats on a pool that others can not read",
            "{apiVersion: zhengyun.io/v1alpha1, kind: StoragePool, metadata: {name: s}, spec: {kind: Directory, path: /srv/zhengyun/local, shared: false, heartbeat: true}}",
            "heartbeat: only a shared pool can carry it"
        ),
        bad!(
            "a fence service that is no URL",
            "{apiVersion: zhengyun.io/v1alpha1, kind: StoragePool, metadata: {name: s}, spec: {kind: Directory, path: /srv/zhengyun/shared, shared: true, fenceService: 'storage.example:8443'}}",
            "fenceService: write a URL such as"
        ),
        bad!(
            "self-fencing that takes too long",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: default}, spec: {failover: {contractSeconds: 40}}}",
            "together are at most 50"
        ),
        bad!(
            "a contract of two renewals",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: default}, spec: {failover: {contractSeconds: 6, leaseIntervalSeconds: 3}}}",
            "two missed renewals would kill every VM"
        ),
        bad!(
            "a disarming that does not say when it was said",
            "{apiVersion: zhengyun.io/v1alpha1, kind: CloudPolicy, metadata: {name: default}, spec: {failover: {disarmed: {until: '2026-01-01T02:00:00Z', reason: switch work, by: admin}}}}",
            "must be at most 24 hours after disarmed.at"
        ),
    ]
}

/// Edits of standing objects that must be refused: `KIND NAMESPACE NAME` stands in `what`.
pub fn bad_edits() -> Vec<BadManifest> {
    vec![
        bad!(
            "Volume oa-office vm1-system",
            "{spec: {size: 512Mi}}",
            "a volume can not shrink"
        ),
        bad!(
            "Volume oa-office vm1-system",
            "{spec: {pool: other}}",
            "pool: can not be changed"
        ),
        bad!(
            "Volume oa-office vm1-system",
            "{spec: {image: null}}",
            "image: can not be changed"
        ),
        bad!(
            "VirtualMachine oa-office vm1",
            "{spec: {cpu: 2}}",
            "cpu, memory: can not be changed yet"
        ),
        bad!(
            "VirtualMachine oa-office vm1",
            "{spec: {networks: [other]}}",
            "networks: can not be changed"
        ),
        bad!(
            "VirtualMachine oa-office vm1",
            "{spec: {disks: [{name: system, volume: other}]}}",
            "spec.disks: can not be changed while the VM is assigned to a host"
        ),
        bad!(
            "BusinessSystem oa-office oa",
            "{spec: {tiers: [{name: database, flavor: large, image: linux, networks: [common], storagePool: shared}]}}",
            "changing the flavor of a running tier is not supported yet"
        ),
        bad!(
            "BusinessSystem oa-office oa",
            "{spec: {tiers: [{name: database, flavor: small, image: other, networks: [common], storagePool: shared}]}}",
            "changing the image of a running tier is not supported yet"
        ),
        bad!(
            "Network - common",
            "{spec: {zone: Dedicated}}",
            "zone: can not be changed"
        ),
        bad!(
            "Network - common",
            "{spec: {vxlan: {vni: 7}}}",
            "vxlan.vni: can not be changed"
        ),
        bad!(
            "Network - common",
            "{spec: {subnets: [{cidr: 10.99.0.0/24}]}}",
            "subnets.cidr: can not be changed"
        ),
        bad!(
            "StoragePool - shared",
            "{spec: {path: /srv/else}}",
            "path: can not be changed"
        ),
        bad!(
            "HostPool - main",
            "{spec: {architecture: aarch64}}",
            "architecture: can not be changed"
        ),
        bad!(
            "Flavor - small",
            "{spec: {cpu: 2}}",
            "a flavor can not be changed"
        ),
        bad!(
            "Image - linux",
            "{spec: {disk: {url: 'http://images/other'}}}",
            "an image's content can not be changed"
        ),
        bad!(
            "VirtualMachineMigration oa-office move1",
            "{spec: {virtualMachine: vm2}}",
            "a migration can not be changed"
        ),
        bad!(
            "Volume oa-office vm1-system",
            "{spec: {format: Raw}}",
            "format: can not be changed"
        ),
        bad!(
            "VirtualMachine oa-office vm1",
            "{spec: {image: other}}",
            "image: can not be changed; make a new VM"
        ),
        bad!(
            "BusinessSystem oa-office oa",
            "{spec: {tiers: [{name: database, flavor: small, image: linux, networks: [other], storagePool: shared}]}}",
            "changing the networks of a running tier is not supported yet"
        ),
        bad!(
            "BusinessSystem oa-office oa",
            "{spec: {tiers: [{name: database, flavor: small, image: linux, networks: [common], storagePool: other}]}}",
            "changing the storage pool of a running tier is not supported yet"
        ),
        bad!(
            "BusinessSystem oa-office oa",
            "{spec: {tiers: [{name: database, flavor: small, image: linux, networks: [common], storagePool: shared, systemDiskSize: 2Gi}]}}",
            "changing the disks of a running tier is not supported yet"
        ),
        bad!(
            "BusinessSystem oa-office oa",
            "{spec: {tiers: [{name: database, flavor: small, image: linux, networks: [common], storagePool: shared, dataDisks: [{name: data, size: 1Gi}]}]}}",
            "changing the data disks of a running tier is not supported yet"
        ),
        bad!(
            "BusinessSystem oa-office oa",
            "{spec: {tiers: [{name: database, flavor: small, image: linux, networks: [common], storagePool: shared, cloudInit: {userData: x}}]}}",
            "tiers.cloudInit: is read at the first start of a VM only"
        ),
        bad!(
            "Network - common",
            "{spec: {vxlan: null, vlan: {id: 7}}}",
            "vxlan, vlan: can not be changed into each other"
        ),
        bad!(
            "Network - offices",
            "{spec: {vlan: {id: 7}}}",
            "vlan.id: can not be changed"
        ),
        bad!(
            "StoragePool - shared",
            "{spec: {kind: Tape}}",
            "spec.kind: Unsupported value"
        ),
        bad!(
            "StoragePool - shared",
            "{spec: {shared: false}}",
            "shared: can not be changed"
        ),
        bad!(
            "CloudPolicy - default",
            "{spec: {failover: {disarmed: {at: '2026-01-02T00:00:00Z', until: '2026-01-09T00:00:00Z', reason: a long weekend, by: admin}}}}",
            "disarmed.until: must be at most 24 hours after disarmed.at"
        ),
        bad!(
            "CloudPolicy - default",
            "{spec: {failover: {disarmed: {until: '2026-01-02T00:00:01Z'}}}}",
            "disarmed.until: must be at most 24 hours after disarmed.at"
        ),
        bad!(
            "Incident - incident1",
            "{spec: {cause: host-silent/h2/b}}",
            "cause: can not be changed"
        ),
        bad!(
            "VirtualMachineMigration oa-office move2",
            "{spec: {cancel: false}}",
            "a cancelled migration can not be revived"
        ),
    ]
}
