//! What dangerous commands ask of a person: a reason, a typed word, a name that the API server knows.

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};

use super::Context;
use crate::language::Language;

/// The name under which the API server knows this person.
///
/// # Errors
/// The API server does not tell.
pub async fn name(context: &Context) -> Result<String> {
    api::signer(context.client.clone())
        .await?
        .context("the API server does not say who you are")
}

/// What a reason is to say, in English and in Chinese.
pub type Wanted = (&'static str, &'static str);

/// Refuses an empty reason.
///
/// # Errors
/// It is empty; names what to say.
pub fn needs_reason(language: Language, reason: &str, what: Wanted) -> Result<()> {
    if reason.trim().is_empty() {
        bail!(match language {
            Language::English => format!("--reason: say in a few words {}", what.0),
            Language::Chinese => format!("--reason:请简要说明{}", what.1),
        });
    }
    Ok(())
}

/// Asks for a word unless it was given with `--confirm`.
///
/// # Errors
/// Another word was typed: nothing is done.
pub fn confirm(context: &Context, given: Option<&str>, word: &str, danger: &str) -> Result<()> {
    let typed = match given {
        Some(given) => given.to_owned(),
        None => {
            eprintln!("{danger}");
            eprint!(
                "{} {word}: ",
                context.say("To go on, type", "如要继续,请输入")
            );
            std::io::stderr().flush()?;
            let mut line = String::new();
            std::io::stdin().read_line(&mut line)?;
            line
        }
    };
    must_be(context.language, &typed, word)
}

/// Refuses every word but the one that was asked for.
fn must_be(language: Language, typed: &str, word: &str) -> Result<()> {
    let typed = typed.trim();
    if typed != word {
        bail!(match language {
            Language::English => format!("--confirm: {typed:?} is not {word:?}; nothing was done"),
            Language::Chinese => format!("--confirm:{typed:?} 不是 {word:?};未执行任何操作"),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_of_blanks_is_none() {
        let asked = |language, reason: &str| {
            let result = needs_reason(language, reason, ("what the work is", "作业内容"));
            result.map_err(|error| error.to_string())
        };
        let english = "--reason: say in a few words what the work is".to_owned();
        assert_eq!(asked(Language::English, "  "), Err(english));
        let chinese = "--reason:请简要说明作业内容".to_owned();
        assert_eq!(asked(Language::Chinese, ""), Err(chinese));
        assert_eq!(asked(Language::Chinese, "cord pulled"), Ok(()));
    }

    #[test]
    fn only_the_very_word_goes_on() {
        let asked = |typed: &str| must_be(Language::English, typed, "disarm");
        // As it is typed: with the end of the line.
        assert!(asked("disarm\n").is_ok());
        assert!(asked(" disarm ").is_ok());
        // Standard input that has ended gives nothing.
        for wrong in ["", "\n", "y\n", "yes", "Disarm", "disarm h1", "disar"] {
            let error = asked(wrong).expect_err(wrong).to_string();
            assert!(error.starts_with("--confirm: "), "{error}");
            assert!(
                error.contains("is not \"disarm\"; nothing was done"),
                "{error}"
            );
        }
    }
}
