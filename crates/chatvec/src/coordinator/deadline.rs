//! The deadline that a client gave its call.
//!
//! Of a call with a single answer the transport keeps it: it answers
//! DEADLINE_EXCEEDED and drops the handler. A stream has begun to answer, and
//! ends itself.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// The header, see the protocol of gRPC over HTTP/2: up to eight digits and a
/// unit.
const HEADER: &str = "grpc-timeout";

/// When the call is over for the client, counted from now; `None` where it set
/// no deadline, or one that cannot be read.
pub(super) fn of(metadata: &MetadataMap) -> Option<Instant> {
    let timeout = timeout(metadata.get(HEADER)?.to_str().ok()?)?;
    Instant::now().checked_add(timeout)
}

fn timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        for (text, expected) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("10S", Duration::from_secs(10)),
            ("250m", Duration::from_millis(250)),
            ("99999999u", Duration::from_micros(99_999_999)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(timeout(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "S",
            "10",
            "10s",
            "-1S",
            "+1S",
            "1.5S",
            "999999999S",
            "1ü",
        ] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }
}
