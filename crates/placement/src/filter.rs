//! The hard rules, never relaxed, in the order in which they are told. Every planner of this
//! crate asks these functions; only the judges in `lint` write the rules a second time.

use model::HostName;

use crate::fleet::{Free, Host, Pool, Vm};

/// A rule that removed a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filter {
    /// Nothing new may be placed there, and why.
    Closed(String),
    /// Its data lies elsewhere, or it waits for another host.
    Pinned,
    /// The host's pool does not exist.
    NoPool,
    /// The pool does not serve a zone of its networks.
    Zone,
    /// Another architecture.
    Architecture,
    /// It can not give guests the processor model of its pool, or the one that the VM runs with.
    CpuModel(String),
    /// Its system's grade is above the pool's.
    Grade,
    /// A storage pool is not ready there.
    Storage,
    /// A storage pool has too little room there for volumes that are to be made.
    StorageRoom,
    /// One of its networks is not ready there, or is a VXLAN and the host has no tunnel end point.
    Network,
    /// A rule of its own spreads it over racks, and the host declares none.
    NoRack,
    /// VMs that must share its host are elsewhere.
    Together,
    /// A VM that must be apart is there.
    Apart,
    /// Not enough virtual processors.
    Cpu,
    /// Not enough memory.
    Memory,
    /// It fits, but with it there N+1 of the host's pool would not be proven.
    Headroom,
    /// No host will do: its rules contradict each other.
    Contradiction(String),
}

impl Filter {
    /// Why, in few words.
    pub fn english(&self) -> String {
        self.told().0
    }

    /// Why, in few words of Chinese (zh-CN). What closes a host, and a contradiction, are the words of others.
    pub fn chinese(&self) -> String {
        self.told().1
    }

    /// In English and in Chinese.
    fn told(&self) -> (String, String) {
        let (english, chinese) = match self {
            Filter::Closed(why) | Filter::Contradiction(why) => return (why.clone(), why.clone()),
            Filter::CpuModel(model) => {
                return (
                    format!("it does not offer processor model {model}"),
                    format!("该宿主机不提供 CPU 型号 {model}"),
                );
            }
            Filter::Pinned => (
                "it is bound to another host, by its data or by its owner's wish",
                "虚拟机已绑定其他宿主机(数据所在或按其设置)",
            ),
            Filter::NoPool => (
                "the host's pool does not exist",
                "该宿主机所属的主机池不存在",
            ),
            Filter::Zone => (
                "the pool does not serve the zone of its network",
                "主机池不服务于虚拟机网络所在的网络区",
            ),
            Filter::Architecture => ("another architecture than its image", "CPU 架构与镜像不同"),
            Filter::Grade => (
                "the pool's MLPS grade is lower than its system's",
                "主机池的等保级别低于业务系统的等保定级",
            ),
            Filter::Storage => (
                "a storage pool of its volumes is not ready there",
                "其卷所在的存储池在该宿主机上未就绪",
            ),
            Filter::StorageRoom => (
                "a storage pool has too little room there for its new volumes",
                "存储池空间不足以创建其新卷",
            ),
            Filter::Network => (
                "one of its networks is not ready there, or lacks a tunnel end point",
                "其某个网络在该宿主机上未就绪,或缺少隧道端点",
            ),
            Filter::NoRack => (
                "it is spread over racks and the host declares none",
                "虚拟机须按机架分散,而该宿主机未声明机架",
            ),
            Filter::Together => (
                "VMs that must share its host are elsewhere",
                "须与其同宿主机的虚拟机在别处",
            ),
            Filter::Apart => (
                "a VM that must be apart is there",
                "须与其分开(反亲和)的虚拟机在该宿主机上",
            ),
            Filter::Cpu => ("not enough CPU", "CPU 不足"),
            Filter::Memory => ("not enough memory", "内存不足"),
            Filter::Headroom => ("N+1 would break with it there", "放置于此将破坏 N+1"),
        };
        (english.to_owned(), chinese.to_owned())
    }
}

/// What the rules look at on one host, apart from its own description.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct There {
    /// Room with the VM itself left out.
    pub free: Free,
    /// Another VM that it must be apart from is there, or in the rack.
    pub apart: bool,
    /// VMs that must share its host are elsewhere.
    pub elsewhere: bool,
    /// The host declares its rack.
    pub racked: bool,
    /// A storage pool has too little room for its new volumes.
    pub storage_full: bool,
}

/// All rules in their order.
pub(crate) fn judge(
    pool: Option<&Pool>,
    vm: &Vm,
    name: &HostName,
    host: &Host,
    there: There,
) -> Option<Filter> {
    if let Some(why) = &vm.rules.contradiction {
        return Some(Filter::Contradiction(why.clone()));
    }
    if let Some(why) = &host.closed {
        return Some(Filter::Closed(why.clone()));
    }
    fits_data(vm, name)
        .or_else(|| fits_kind(pool, vm, host, there.racked))
        .or_else(|| there.storage_full.then_some(Filter::StorageRoom))
        .or_else(|| there.elsewhere.then_some(Filter::Together))
        .or_else(|| there.apart.then_some(Filter::Apart))
        .or_else(|| fits_size(vm, there.free))
}

/// The rule about where its data lies.
pub(crate) fn fits_data(vm: &Vm, name: &HostName) -> Option<Filter> {
    let elsewhere = vm.pinned_to.as_ref().is_some_and(|pinned| pinned != name);
    elsewhere.then_some(Filter::Pinned)
}

/// Rules that look only at what kind of host it is: hosts of one kind share the answer.
pub(crate) fn fits_kind(pool: Option<&Pool>, vm: &Vm, host: &Host, racked: bool) -> Option<Filter> {
    let Some(pool) = pool else {
        return Some(Filter::NoPool);
    };
    if !vm.zones.is_subset(&pool.zones) {
        Some(Filter::Zone)
    } else if vm.architecture != pool.architecture {
        Some(Filter::Architecture)
    } else if let Some(model) = lacks_model(pool, vm, host) {
        Some(Filter::CpuModel(model.clone()))
    } else if vm.mlps_grade > pool.mlps_grade {
        Some(Filter::Grade)
    } else if !vm.storage_pools.is_subset(&host.storage_pools) {
        Some(Filter::Storage)
    } else if lacks_network(vm, host) {
        Some(Filter::Network)
    } else if vm.rules.needs_rack() && !racked {
        Some(Filter::NoRack)
    } else {
        None
    }
}

/// The processor model that a host would have to offer and does not: that of its pool, for every
/// start there, and those that a running copy sees, for a move.
fn lacks_model<'a>(pool: &'a Pool, vm: &'a Vm, host: &Host) -> Option<&'a String> {
    let offered = host.cpu_models.as_ref()?;
    let mut wanted = pool.cpu_model.iter().chain(vm.runs_with.iter());
    wanted.find(|model| !offered.contains(*model))
}

/// A network of the VM is not ready there, or needs an end point that the host does not have.
fn lacks_network(vm: &Vm, host: &Host) -> bool {
    vm.needs_tunnels && !host.has_tunnels || !vm.networks.is_disjoint(&host.unready_networks)
}

/// Rules about room.
pub(crate) fn fits_size(vm: &Vm, free: Free) -> Option<Filter> {
    if vm.memory_bytes > free.memory_bytes {
        Some(Filter::Memory)
    } else if vm.cpu > free.cpu {
        Some(Filter::Cpu)
    } else {
        None
    }
}
