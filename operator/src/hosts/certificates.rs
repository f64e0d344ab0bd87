//! Whether a host's certificates will be good for a while. Pure.

use api::HostCertificate;
use jiff::Timestamp;

use crate::conditions::Judged;

/// How long before the end people are warned, seconds: two weeks, to find somebody who signs.
const SOON: i64 = 14 * 86_400;

/// The condition, from what the agent reports. Its sentence names days, not what is left of them: it is
/// written when something turns, not every second.
pub(super) fn judge(certificates: &[HostCertificate], now: Timestamp) -> Judged {
    let left =
        |certificate: &HostCertificate| certificate.expires_at.0.as_second() - now.as_second();
    let mut ending: Vec<&HostCertificate> = certificates
        .iter()
        .filter(|certificate| left(certificate) < SOON)
        .collect();
    ending.sort_by(|one, two| {
        let by_time = one.expires_at.0.cmp(&two.expires_at.0);
        by_time.then_with(|| one.name.cmp(&two.name))
    });
    let Some(first) = ending.first() else {
        return Judged::new("CertificatesValid", true, "Valid", "");
    };
    let expired = left(first) <= 0;
    let sentences: Vec<String> = ending
        .iter()
        .map(|certificate| {
            let day = certificate.expires_at.0.strftime("%Y-%m-%d");
            format!("certificate {} expires on {day}", certificate.name)
        })
        .collect();
    let message = format!(
        "{}: renew it as docs/adding-a-host.md says, then systemctl restart zhengyun-guard zhengyun-agent (no VM stops)",
        sentences.join(", ")
    );
    let reason = if expired { "Expired" } else { "ExpiresSoon" };
    Judged::new("CertificatesValid", false, reason, message)
}

#[cfg(test)]
mod tests {
    use api::Time;

    use super::*;

    const DAY: i64 = 86_400;
    /// 1 January 2030.
    const NOW: i64 = 1_893_456_000;

    fn judged(of: &[(&str, i64)]) -> Judged {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let certificates: Vec<HostCertificate> = of
            .iter()
            .map(|(name, left)| HostCertificate {
                name: (*name).to_owned(),
                expires_at: Time(at(NOW + left)),
            })
            .collect();
        judge(&certificates, at(NOW))
    }

    #[test]
    fn people_are_warned_two_weeks_before() {
        assert!(judged(&[]).good, "an agent that reports none");
        assert!(judged(&[("api", 14 * DAY), ("agent", 300 * DAY)]).good);
        let soon = judged(&[
            ("agent", 13 * DAY),
            ("qemu-server", 300 * DAY),
            ("api", 2 * DAY),
        ]);
        assert!(!soon.good);
        assert_eq!(soon.reason, "ExpiresSoon");
        assert_eq!(
            soon.message,
            "certificate api expires on 2030-01-03, certificate agent expires on 2030-01-14: renew it as docs/adding-a-host.md says, then systemctl restart zhengyun-guard zhengyun-agent (no VM stops)"
        );
        let gone = judged(&[("agent", 13 * DAY), ("api", 0)]);
        assert_eq!((gone.good, gone.reason.as_str()), (false, "Expired"));
    }
}
