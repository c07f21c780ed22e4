//! The time of a log line: RFC 3339, UTC, to the microsecond. A thread keeps the second that it wrote last: the date
//! was a fifth of what a line costs.

use std::{cell::Cell, fmt};

use chrono::{DateTime, Utc};
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

/// `2026-11-27T06:30:00`, and which second of the Unix epoch that is.
type Second = (i64, [u8; 19]);

thread_local! {
    static LAST: Cell<Option<Second>> = const { Cell::new(None) };
}

/// Tells the time now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write(writer, Utc::now())
    }
}

fn write(to: &mut impl fmt::Write, now: DateTime<Utc>) -> fmt::Result {
    let last = LAST.get().filter(|(second, _)| *second == now.timestamp());
    let (_, text) = last.map_or_else(|| remember(now), Ok)?;
    to.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)?;
    let mut fraction = *b".000000Z";
    let mut micros = now.timestamp_subsec_micros();
    for digit in fraction[1..7].iter_mut().rev() {
        // A digit, so that nothing is cut off.
        *digit = b'0' + u8::try_from(micros % 10).unwrap_or_default();
        micros /= 10;
    }
    to.write_str(std::str::from_utf8(&fraction).map_err(|_| fmt::Error)?)
}

fn remember(now: DateTime<Utc>) -> Result<Second, fmt::Error> {
    let text = now.format("%Y-%m-%dT%H:%M:%S").to_string();
    let second = (now.timestamp(), text.into_bytes().try_into().map_err(|_| fmt::Error)?);
    LAST.set(Some(second));
    Ok(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_as_it_is_however_soon_it_follows_another() {
        let mut now: DateTime<Utc> = "2026-12-31T23:59:59.000007Z".parse().unwrap();
        for (plus_micros, expected) in [
            (0, "2026-12-31T23:59:59.000007Z"),
            (999_992, "2026-12-31T23:59:59.999999Z"),
            (1, "2027-01-01T00:00:00.000000Z"),
            (120_450, "2027-01-01T00:00:00.120450Z"),
            (-1_000_000, "2026-12-31T23:59:59.120450Z"),
        ] {
            now += chrono::TimeDelta::microseconds(plus_micros);
            let mut text = String::new();
            write(&mut text, now).unwrap();
            assert_eq!(text, expected);
        }
    }
}
