//! `zyctl drill`: makes a fault that the site must withstand, on purpose, and measures what follows.

mod condition;
mod definition;
mod hand;
mod power;
mod report;
mod words;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use api::Host;
use kube::Api;

use super::{Context, host, person};
use crate::client::{Site, name_of};
use crate::language::Language;
use crate::options::{DrillBy, Output};
use condition::{Before, holds};
use definition::{Condition, Drill, Place, Step, Text};
use hand::{Act, Hand};
use report::{Downtime, Outcome, Report};

/// How often the site is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// What takes so many times the bar does not come.
const PATIENCE: f64 = 10.0;
/// And not before this.
const PATIENCE_LEAST: Duration = Duration::from_secs(120);
/// How often a mended host is cleared until it is Ready.
const CLEAR_EVERY: Duration = Duration::from_secs(3);

/// What a drill is asked to be.
pub struct Request<'a> {
    /// Name, or a file.
    pub drill: &'a str,
    /// Host to try it on.
    pub host: &'a str,
    /// The lab, when it is one.
    pub lab: Option<&'a str>,
    /// Who makes the faults otherwise.
    pub by: DrillBy,
    /// The host's name once more.
    pub confirm: Option<&'a str>,
    /// File for the Markdown report.
    pub report: Option<&'a Path>,
}

/// Lists the drills that every site has.
///
/// # Errors
/// A drill is damaged.
pub fn list(context: &Context) -> Result<()> {
    for drill in definition::built_in()? {
        println!(
            "{:20} {}",
            drill.name,
            context.say(&drill.title.en, &drill.title.zh)
        );
    }
    Ok(())
}

/// Runs a drill; ends with an error when something did not come about.
///
/// # Errors
/// The drill or host does not exist, the site is not well, the name was not typed, or it failed.
pub async fn run(context: &Context, request: &Request<'_>) -> Result<()> {
    let drill = definition::load(request.drill)?;
    let hand = match (request.lab, request.by) {
        (Some(lab), _) => Hand::Lab(lab.to_owned()),
        (None, DrillBy::Bmc) => Hand::Bmc,
        (None, DrillBy::Person) => Hand::Person,
    };
    for step in &drill.steps {
        if let Step::Fault { fault, .. } | Step::Heal { fault, .. } = step {
            hand.can(fault)?;
        }
    }
    let hosts: Api<Host> = Api::all(context.client.clone());
    host::get(&hosts, request.host).await?;
    let site = Site::read(&context.client).await?;
    let before = Before::of(&site, request.host);
    if !holds(&Condition::AllWell, &before, &site) {
        bail!(
            "{}",
            context.say(
                "the site is not well; a drill begins when every host is Ready and every system answers",
                "站点状态不正常;所有宿主机正常且所有业务系统应答时才能开始演练"
            )
        );
    }
    if let Some((english, chinese)) = danger(&drill, &hand) {
        let danger = context.say(english, chinese);
        person::confirm(context, request.confirm, request.host, danger)?;
    }
    let mut report = Report {
        drill: drill.name.clone(),
        host: request.host.to_owned(),
        by: match &hand {
            Hand::Lab(lab) => format!("lab {lab}"),
            Hand::Bmc => "BMC".to_owned(),
            Hand::Person => person::name(context).await?,
        },
        began_at: jiff::Timestamp::now(),
        outcomes: Vec::new(),
        downtimes: Vec::new(),
        failed: false,
        late: false,
        problems: Vec::new(),
    };
    play(context, &drill, &hand, &before, &mut report).await;
    report.downtimes = downtimes(context, &before).await?;
    report.conclude();
    tell(context, &drill, &report, request.report)?;
    if report.failed {
        bail!("drill {} on {} was not passed", drill.name, request.host);
    }
    Ok(())
}

/// What a person is told, and confirms, before a drill begins: before every one on a site that is no
/// lab, and on a lab before one that stops VMs.
fn danger(drill: &Drill, hand: &Hand) -> Option<(&'static str, &'static str)> {
    match (drill.stops_vms, hand) {
        (true, _) => Some((
            "The VMs of this host stop, or may stop, and must then restart elsewhere.",
            "该宿主机上的虚拟机将停止或可能停止,并须在其他宿主机重启。",
        )),
        (false, Hand::Lab(_)) => None,
        (false, Hand::Bmc | Hand::Person) => Some((
            "This is tried on a live site. Its VMs should run on; where the site does not withstand it, they stop.",
            "演练在正式站点上进行。虚拟机应继续运行;如站点未能承受,虚拟机将停止。",
        )),
    }
}

/// Plays every step. After the first that fails only what ends faults is still done.
async fn play(context: &Context, drill: &Drill, hand: &Hand, before: &Before, report: &mut Report) {
    let mut since = Instant::now();
    let mut struck = false;
    for step in &drill.steps {
        let failed = !report.problems.is_empty() || report.outcomes.iter().any(|o| !o.held);
        let result = match step {
            Step::Fault { fault, at, say } if !failed => {
                struck = true;
                since = Instant::now();
                act(context, hand, before, (fault, *at, say), false).await
            }
            Step::Heal { fault, at, say } if !failed || struck => {
                let result = act(context, hand, before, (fault, *at, say), true).await;
                since = Instant::now();
                result
            }
            Step::Clear { within, say } if !failed => {
                let outcome = clear(context, before, *within, say).await;
                progress(context, &outcome);
                report.outcomes.push(outcome);
                Ok(())
            }
            Step::Pass { seconds, .. } if !failed => {
                tokio::time::sleep(Duration::from_secs_f64(*seconds)).await;
                Ok(())
            }
            Step::Until { what, within, say } if !failed => {
                let outcome = wait(context, before, what, since, *within, say).await;
                progress(context, &outcome);
                report.outcomes.push(outcome);
                Ok(())
            }
            Step::Hold { seconds, what, say } if !failed => {
                let outcome = hold(context, before, what, *seconds, say).await;
                progress(context, &outcome);
                report.outcomes.push(outcome);
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(error) = result {
            report.problems.push(format!("{error:#}"));
        }
    }
}

async fn act(
    context: &Context,
    hand: &Hand,
    before: &Before,
    (fault, at, say): (&str, Place, &Text),
    heal: bool,
) -> Result<()> {
    eprintln!("· {}", context.say(&say.en, &say.zh));
    let act = Act {
        fault,
        at,
        host: &before.host,
        heal,
        say,
    };
    hand.act(&context.client, context.language, &act)
        .await
        .with_context(|| fault.to_owned())
}

fn progress(context: &Context, outcome: &Outcome) {
    let took = outcome
        .seconds
        .map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.1} s"));
    let mark = if outcome.held { "✓" } else { "✗" };
    eprintln!("{mark} {took:>8}  {}", outcome.told(context.language));
}

/// The first of these that is not so now.
async fn broken<'a>(
    context: &Context,
    before: &Before,
    what: &'a [Condition],
) -> Result<Option<&'a Condition>> {
    let site = Site::read(&context.client).await?;
    Ok(what.iter().find(|what| !holds(what, before, &site)))
}

/// Why it is not so now, if it is not. While the API server is down, nothing is known; the next look may tell.
async fn missing(context: &Context, before: &Before, what: &Condition) -> Option<Text> {
    match broken(context, before, std::slice::from_ref(what)).await {
        Ok(broken) => broken.map(words::never),
        Err(error) => Some(words::unseen(&error)),
    }
}

async fn wait(
    context: &Context,
    before: &Before,
    what: &Condition,
    since: Instant,
    within: f64,
    say: &Text,
) -> Outcome {
    let patience = Duration::from_secs_f64(within * PATIENCE).max(PATIENCE_LEAST);
    let mut outcome = Outcome::of(say, Some(within));
    loop {
        outcome.why = missing(context, before, what).await;
        if outcome.why.is_none() {
            outcome.seconds = Some(since.elapsed().as_secs_f64());
            outcome.held = true;
            return outcome;
        }
        if since.elapsed() >= patience {
            return outcome;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A person declares the host's faults as dealt with. What a probe sees again before its next look
/// at the mended part counts again, so it is said until the host is Ready.
async fn clear(context: &Context, before: &Before, within: f64, say: &Text) -> Outcome {
    let begin = Instant::now();
    let ready = Condition::HostState {
        states: vec!["Ready".to_owned()],
    };
    let mut outcome = Outcome::of(say, Some(within));
    let mut said: Option<Instant> = None;
    loop {
        if said.is_none_or(|said| said.elapsed() >= CLEAR_EVERY) {
            if let Err(error) = host::declare_cleared(context, &before.host, "drill").await {
                outcome.why = Some(words::not_cleared(&error));
                return outcome;
            }
            said = Some(Instant::now());
        }
        outcome.why = missing(context, before, &ready).await;
        if outcome.why.is_none() {
            outcome.seconds = Some(begin.elapsed().as_secs_f64());
            outcome.held = true;
            return outcome;
        }
        if begin.elapsed() > PATIENCE_LEAST {
            return outcome;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn hold(
    context: &Context,
    before: &Before,
    what: &[Condition],
    seconds: f64,
    say: &Text,
) -> Outcome {
    let begin = Instant::now();
    let mut outcome = Outcome::of(say, None);
    loop {
        match broken(context, before, what).await {
            Ok(None) => outcome.held = true,
            Ok(Some(broken)) => {
                outcome.held = false;
                outcome.why = Some(words::changed(broken));
                return outcome;
            }
            Err(error) => outcome.why = Some(words::unseen(&error)),
        }
        if begin.elapsed().as_secs_f64() >= seconds {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    // What nobody could see did not hold for sure; one look that failed among others is no reason.
    outcome.why = outcome.why.filter(|_| !outcome.held);
    outcome
}

async fn downtimes(context: &Context, before: &Before) -> Result<Vec<Downtime>> {
    let site = Site::read(&context.client).await?;
    Ok(before
        .opened(&site)
        .flat_map(|incident| {
            let systems = incident.status.clone().unwrap_or_default().systems;
            systems.into_iter().map(|system| Downtime {
                incident: name_of(incident),
                system: system.display_name,
                down_seconds: system.downtime_seconds,
                unobserved_seconds: system.unobserved_seconds,
                not_measured: system.not_measured,
            })
        })
        .collect())
}

fn tell(context: &Context, drill: &Drill, report: &Report, file: Option<&Path>) -> Result<()> {
    if let Some(file) = file {
        let both = format!(
            "{}\n{}",
            report.markdown(drill, Language::Chinese),
            report.markdown(drill, Language::English)
        );
        std::fs::write(file, both)
            .with_context(|| format!("--report {}: can not be written", file.display()))?;
    }
    if context.output == Output::Json {
        return context.print_json(report);
    }
    println!("{}", report.markdown(drill, context.language));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drill_on_a_live_site_is_confirmed_and_on_a_lab_those_that_stop_vms() {
        for drill in definition::built_in().expect("drills") {
            for hand in [Hand::Person, Hand::Bmc] {
                assert!(
                    danger(&drill, &hand).is_some(),
                    "{} by {hand:?}",
                    drill.name
                );
            }
            let in_lab = danger(&drill, &Hand::Lab("lab".to_owned()));
            assert_eq!(in_lab.is_some(), drill.stops_vms, "{}", drill.name);
        }
        // A host whose VMs no probe answers for is fenced when its management network is cut.
        let cut = definition::load("management-cut").expect("a drill");
        assert!(cut.stops_vms);
    }
}
