//! What the commands that plan read: the site as it is now, or a file that was saved. They ask the
//! same `placement` that the operator asks, and change nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Error, Result, anyhow};
use fleet::snapshot::Snapshot;
use fleet::{Objects, closed_by_condition};
use kube::{Client, Resource};
use model::{Bytes, HostName, VmUid};
use placement::{Fleet, Headroom, HeadroomReport, room_left};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::client::{connect, list};
use crate::language::Language;
use crate::options::{Options, Output};
use crate::said;

/// A fleet to plan on, and how to answer.
pub struct Planning {
    /// Everything that was read.
    pub snapshot: Snapshot,
    /// The fleet as `placement` reads it.
    pub fleet: Fleet,
    /// Language of tables and sentences.
    pub language: Language,
    /// Form of the output.
    pub output: Output,
}

impl Planning {
    /// Reads the file where one is named, else the site.
    ///
    /// # Errors
    /// What can not be read, and the remedy.
    pub async fn new(options: &Options, file: Option<&PathBuf>) -> Result<Self> {
        let language = Language::choose(options.language, |name| std::env::var(name).ok());
        let snapshot = match file {
            Some(file) => read_file(language, file)?,
            None => read_site(&connect(options).await?).await?,
        };
        Ok(Self::with(snapshot, language, options.output))
    }

    /// The site as it is now, for a command that then changes it.
    ///
    /// # Errors
    /// What can not be read.
    pub async fn of(context: &super::Context) -> Result<Self> {
        let snapshot = read_site(&context.client).await?;
        Ok(Self::with(snapshot, context.language, context.output))
    }

    fn with(snapshot: Snapshot, language: Language, output: Output) -> Self {
        Self {
            fleet: snapshot.objects.fleet(closed_by_condition),
            snapshot,
            language,
            output,
        }
    }

    /// Picks one of two texts by language.
    pub fn say<'a>(&self, english: &'a str, chinese: &'a str) -> &'a str {
        self.language.pick(english, chinese)
    }

    /// An error in the language asked for.
    pub fn fail(&self, english: impl Into<String>, chinese: impl Into<String>) -> Error {
        match self.language {
            Language::English => anyhow!(english.into()),
            Language::Chinese => anyhow!(chinese.into()),
        }
    }

    /// What `placement` says, in the language asked for.
    pub fn told(&self, sentence: &str) -> String {
        said::sentence(self.language, sentence).into_owned()
    }

    /// Prints the answer in the form that was asked for.
    ///
    /// # Errors
    /// A value that has no JSON form.
    pub fn print(&self, json: &Value, text: impl FnOnce() -> String) -> Result<()> {
        match self.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(json)?),
            Output::Table => print!("{}", text()),
        }
        Ok(())
    }

    /// The last line of every answer, and of which fleet it speaks.
    pub fn nothing_changed(&self) -> String {
        let saved = &self.snapshot.saved_at;
        if saved.is_empty() {
            self.say("Nothing was changed.\n", "未做任何更改。\n")
                .to_owned()
        } else {
            match self.language {
                Language::English => {
                    format!("The fleet is that of {saved}. Nothing was changed.\n")
                }
                Language::Chinese => format!("依据 {saved} 保存的快照。未做任何更改。\n"),
            }
        }
    }

    /// A host of the fleet by name.
    ///
    /// # Errors
    /// There is none, or it has never reported.
    pub fn host(&self, name: &str) -> Result<HostName> {
        let known = |host: &Arc<api::Host>| host.metadata.name.as_deref() == Some(name);
        if !self.snapshot.objects.hosts.iter().any(known) {
            return Err(self.fail(
                format!("host {name} does not exist; see kubectl get zh"),
                format!("宿主机 {name} 不存在;请查看 kubectl get zh"),
            ));
        }
        let host = HostName(name.to_owned());
        if !self.fleet.hosts.contains_key(&host) {
            return Err(self.never_reported(name));
        }
        Ok(host)
    }

    /// A host of which nobody knows what it has.
    pub fn never_reported(&self, name: &str) -> Error {
        self.fail(
            format!("host {name} has never reported what it has; see zyctl status"),
            format!("宿主机 {name} 从未上报其资源;请查看 zyctl status"),
        )
    }

    /// The pool that is named; when none is, the only one.
    ///
    /// # Errors
    /// It does not exist, or there are several.
    pub fn pools(&self, named: Option<&str>) -> Result<Vec<String>> {
        match named {
            Some(pool) if self.fleet.pools.contains_key(pool) => Ok(vec![pool.to_owned()]),
            Some(pool) => Err(self.fail(
                format!("host pool {pool} does not exist; see kubectl get hp"),
                format!("主机池 {pool} 不存在;请查看 kubectl get hp"),
            )),
            None => Ok(self.fleet.pools.keys().cloned().collect()),
        }
    }

    /// Head-room of a pool of some fleet, with the room left in the sizes that people know.
    pub fn headroom(&self, fleet: &Fleet, report: &HeadroomReport, pool: &str) -> Told {
        let name = |uid: &VmUid| fleet.name_of(uid);
        let (state, message) = match &report.headroom {
            Headroom::Proven => (
                "Proven",
                self.say(
                    "any one host may fail and every VM finds a place",
                    "任何一台宿主机故障,所有虚拟机都能找到新位置",
                )
                .to_owned(),
            ),
            Headroom::NotPromised => (
                "NotPromised",
                self.say("the pool promises nothing", "该主机池未作承诺")
                    .to_owned(),
            ),
            Headroom::Broken { failure, vm } => ("Broken", self.broken(failure, &name(vm))),
            Headroom::Unknown { failure } => (
                "Unknown",
                match self.language {
                    Language::English => format!("not proven for the failure of host {failure}"),
                    Language::Chinese => format!("宿主机 {failure} 故障的情形未能证明"),
                },
            ),
        };
        let sizes: Vec<(String, u64, u64)> = self
            .snapshot
            .flavors
            .iter()
            .filter_map(|flavor| {
                let memory = Bytes::parse(&flavor.spec.memory).ok()?.0;
                let name = flavor.metadata.name.clone()?;
                Some((name, u64::try_from(flavor.spec.cpu).ok()?, memory))
            })
            .collect();
        Told {
            pool: pool.to_owned(),
            state,
            message,
            worst: report
                .most_dangerous()
                .map(|failure| failure.failure.to_string()),
            room: room_left(fleet, pool, &sizes)
                .into_iter()
                .map(|room| (room.name, room.more))
                .collect(),
        }
    }

    fn broken(&self, failure: &HostName, vm: &str) -> String {
        match self.language {
            Language::English => format!("if host {failure} failed, {vm} would find no place"),
            Language::Chinese => format!("若宿主机 {failure} 故障,{vm} 将找不到位置"),
        }
    }
}

/// What is told of a pool's head-room.
pub struct Told {
    pool: String,
    state: &'static str,
    message: String,
    worst: Option<String>,
    room: Vec<(String, u64)>,
}

impl Told {
    /// For programs.
    pub fn json(&self) -> Value {
        let room = self.room.iter();
        let room: Vec<_> = room
            .map(|(flavor, more)| json!({"flavor": flavor, "more": more}))
            .collect();
        json!({"pool": self.pool, "state": self.state, "message": self.message,
            "worstFailure": self.worst, "roomLeft": room})
    }

    /// For people, one line: the promise, the worst failure, the room left.
    pub fn text(&self, planning: &Planning) -> String {
        let room: Vec<String> = self
            .room
            .iter()
            .filter(|(_, more)| *more > 0)
            .map(|(flavor, more)| match planning.language {
                Language::English => format!("{more} more {flavor}"),
                Language::Chinese => format!("{flavor} 还可 {more} 台"),
            })
            .collect();
        let room = match room.is_empty() {
            true => planning.say("no room left", "没有余量").to_owned(),
            false => room.join(planning.say(", ", "、")),
        };
        let state = planning.language.state(self.state);
        let worst = self.worst.as_deref().map(|worst| planning.told(worst));
        let (pool, message) = (&self.pool, &self.message);
        match planning.language {
            Language::English => {
                let worst =
                    worst.map_or_else(String::new, |worst| format!("; worst failure: {worst}"));
                format!("pool {pool}: N+1 {state} ({message}){worst}; {room}\n")
            }
            Language::Chinese => {
                let worst =
                    worst.map_or_else(String::new, |worst| format!(";最危险的故障:{worst}"));
                format!("主机池 {pool}:N+1 {state}({message}){worst};{room}\n")
            }
        }
    }
}

fn read_file(language: Language, file: &Path) -> Result<Snapshot> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        let why = language.pick("can not be read", "无法读取");
        anyhow!("--fleet {name}: {why}: {error}")
    })?;
    Snapshot::from_text(&text).map_err(|error| match language {
        Language::English => anyhow!("--fleet {name}: {error}"),
        Language::Chinese => anyhow!("--fleet {name}:{}", error.chinese()),
    })
}

/// Reads everything that a fleet is made of.
///
/// # Errors
/// Names the kind that could not be read.
pub async fn read_site(client: &Client) -> Result<Snapshot> {
    async fn shared<K>(client: &Client) -> Result<Vec<Arc<K>>>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        Ok(list::<K>(client).await?.into_iter().map(Arc::new).collect())
    }
    let (host_pools, hosts, vms, volumes, networks, images, storage_pools) = futures::try_join!(
        shared(client),
        shared(client),
        shared(client),
        shared(client),
        shared(client),
        shared(client),
        shared(client)
    )?;
    let (flavors, policies, migrations, departments) = futures::try_join!(
        shared(client),
        shared(client),
        shared(client),
        shared(client)
    )?;
    Ok(Snapshot {
        saved_at: String::new(),
        objects: Objects {
            host_pools,
            hosts,
            vms,
            volumes,
            networks,
            images,
            storage_pools,
        },
        flavors,
        policies,
        migrations,
        departments: Some(departments),
    })
}
