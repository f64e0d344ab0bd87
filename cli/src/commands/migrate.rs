//! `zyctl migrate`: one VM, followed to its end.

use anyhow::{Context as _, Result, bail};
use api::{MigrationPhase, VirtualMachineMigration, VirtualMachineMigrationSpec};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use super::{Context, follow};
use crate::client::{find_vm, name_of};
use crate::language::Language;
use crate::options::Output;
use crate::said;

/// Creates a migration and follows it.
///
/// # Errors
/// Says why the VM was not moved, and what became of it.
pub async fn run(
    context: &Context,
    vm: &str,
    namespace: Option<&str>,
    to: Option<&str>,
    wait: bool,
) -> Result<()> {
    let vm = find_vm(&context.client, vm, namespace).await?;
    let name = name_of(&vm);
    let namespace = vm.metadata.namespace.clone().unwrap_or_default();
    let migrations: Api<VirtualMachineMigration> =
        Api::namespaced(context.client.clone(), &namespace);
    let migration = VirtualMachineMigration {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            ..ObjectMeta::default()
        },
        spec: VirtualMachineMigrationSpec {
            virtual_machine: name.clone(),
            target_host: to.map(str::to_owned),
            reason: Default::default(),
            cancel: false,
        },
        status: None,
    };
    let created = migrations
        .create(&PostParams::default(), &migration)
        .await?;
    let migration_name = created
        .metadata
        .name
        .context("the API server gave the migration no name")?;
    if !wait {
        println!("{namespace}/{migration_name}");
        return Ok(());
    }
    let mut last = String::new();
    let end = follow::until(migrations, &migration_name, |migration| {
        let status = migration.status.clone()?;
        let message = status.message.as_deref().unwrap_or_default();
        let line = format!(
            "{}: {}",
            context.language.state(&format!("{:?}", status.phase)),
            said::sentence(context.language, message)
        );
        if line != last && context.output == Output::Table {
            println!("{line}");
            last = line;
        }
        matches!(
            status.phase,
            MigrationPhase::Succeeded | MigrationPhase::Cancelled | MigrationPhase::Failed
        )
        .then_some(status)
    })
    .await?;
    if context.output == Output::Json {
        context.print_json(&end)?;
    }
    if end.phase != MigrationPhase::Succeeded {
        let why = end.message.unwrap_or_default();
        let why = said::sentence(context.language, &why);
        bail!(match context.language {
            Language::English => format!("VM {namespace}/{name} was not moved: {why}"),
            Language::Chinese => format!("虚拟机 {namespace}/{name} 未迁移:{why}"),
        });
    }
    if let (Some(pause), Some(total), Output::Table) = (
        end.pause_milliseconds,
        end.total_milliseconds,
        context.output,
    ) {
        println!(
            "{}",
            match context.language {
                Language::English =>
                    format!("The guest stood still for {pause} ms; {total} ms in all."),
                Language::Chinese => format!("虚拟机停顿 {pause} 毫秒,总用时 {total} 毫秒。"),
            }
        );
    }
    Ok(())
}
