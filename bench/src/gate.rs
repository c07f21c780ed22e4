//! The figures that the product must reach, as ratios to the skeleton and to FastMCP's own proxy in the same rounds.

use std::fmt;

use crate::measure::Sample;
use crate::plan::Level;
use crate::results::{Results, cpu};
use crate::targets::Target;

/// Which side of the bound is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Good {
    AtLeast,
    AtMost,
}

/// One figure with what it must be, and what it should be.
#[derive(Debug)]
pub(crate) struct Gate {
    what: &'static str,
    measured: Option<f64>,
    good: Good,
    bound: f64,
    goal: Option<f64>,
    unit: &'static str,
}

impl Gate {
    /// True when the figure was measured and is on the good side.
    pub(crate) fn passes(&self) -> bool {
        self.measured.is_some_and(|measured| match self.good {
            Good::AtLeast => measured >= self.bound,
            Good::AtMost => measured <= self.bound,
        })
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.good == Good::AtLeast { ">=" } else { "<=" };
        let unit = self.unit;
        let measured = self.measured.map_or("-".to_owned(), |measured| format!("{measured:.2}{unit}"));
        let goal = self.goal.map_or("-".to_owned(), |goal| format!("{sign} {goal:.1}{unit}"));
        let verdict = match (self.measured, self.passes()) {
            (None, _) => "not measured",
            (_, true) => "ok",
            (_, false) => "MISSED",
        };
        write!(formatter, "| {} | {measured} | {sign} {:.1}{unit} | {goal} | {verdict} |", self.what, self.bound)
    }
}

/// All gates with what was measured.
pub(crate) fn gates(results: &Results) -> Vec<Gate> {
    of_calls(results).into_iter().chain(of_prompts(results)).collect()
}

/// Those of calls.
fn of_calls(results: &Results) -> Vec<Gate> {
    let rate = |sample: &Sample| sample.figures.calls_per_s;
    let p50 = |sample: &Sample| sample.figures.p50_ms;
    let (one, many) = (Level::echo(1), Level::echo(64));
    let (native, skeleton) = (Target::Native, Target::Skeleton);
    // The lower of the two: both are what somebody runs.
    let fastmcp = [Level::echo(16), many]
        .into_iter()
        .map(|level| results.ratio(level, Target::Fastmcp, Target::FastmcpProxy, rate))
        .collect::<Option<Vec<_>>>()
        .and_then(|ratios| ratios.into_iter().reduce(f64::min));
    let memory = results.largest(Level::echo(256), native, |sample| sample.peak_pss_mb);
    let ratio = |what, measured, good, bound, goal| Gate { what, measured, good, bound, goal: Some(goal), unit: "x" };
    vec![
        ratio(
            "native, 64 callers: calls/s of the skeleton's",
            results.ratio(many, native, skeleton, rate),
            Good::AtLeast,
            0.6,
            1.0,
        ),
        ratio(
            "native, 1 caller: p50 of the skeleton's",
            results.ratio(one, native, skeleton, p50),
            Good::AtMost,
            1.5,
            1.2,
        ),
        ratio(
            "native, 64 callers: CPU per call of the skeleton's",
            results.ratio(many, native, skeleton, cpu),
            Good::AtMost,
            1.8,
            1.3,
        ),
        Gate {
            what: "through the FastMCP service, 16 and 64 callers: calls/s of FastMCP's proxy",
            measured: fastmcp,
            good: Good::AtLeast,
            bound: 3.0,
            goal: None,
            unit: "x",
        },
        Gate {
            what: "gateway + workers + nats-server, 256 callers: peak PSS",
            measured: memory,
            good: Good::AtMost,
            bound: 150.0,
            goal: None,
            unit: " MB",
        },
        Gate {
            what: "Switchboard, everything: calls without their own answer",
            measured: results.all_errors(Target::is_switchboard).map(f64::from),
            good: Good::AtMost,
            bound: 0.0,
            goal: None,
            unit: "",
        },
    ]
}

/// Those of composing prompts.
fn of_prompts(results: &Results) -> [Gate; 2] {
    [
        Gate {
            what: "a prompt of all four layers, from what a worker keeps",
            measured: results.prompts().map(|prompts| prompts.kept_ms),
            good: Good::AtMost,
            bound: 0.2,
            goal: None,
            unit: " ms",
        },
        Gate {
            what: "a prompt of all four layers, from PostgreSQL",
            measured: results.prompts().map(|prompts| prompts.read_ms),
            good: Good::AtMost,
            bound: 10.0,
            goal: None,
            unit: " ms",
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Cell;
    use crate::prompts::Prompts;
    use crate::results::tests::sample;

    fn results(native: &Sample, memory_mb: f64) -> Results {
        let mut results = Results::default();
        for callers in [1, 16, 64, 256] {
            let level = Level::echo(callers);
            let mut add = |target, sample| results.add(Cell { round: 0, level, target }, sample);
            add(Target::Skeleton, sample(1_000.0, 1.0, 0.2));
            add(Target::Native, Sample { peak_pss_mb: memory_mb, ..native.clone() });
            add(Target::Fastmcp, sample(300.0, 1.0, 1.0));
            add(Target::FastmcpProxy, sample(30.0, 1.0, 1.0));
        }
        results.set_prompts(Prompts { kept_ms: 0.2, read_ms: 10.0 });
        results
    }

    fn failing(mut sample: Sample) -> Sample {
        sample.figures.errors = 1;
        sample
    }

    fn missed(results: &Results) -> Vec<&'static str> {
        gates(results).into_iter().filter(|gate| !gate.passes()).map(|gate| gate.what).collect()
    }

    #[test]
    fn each_gate_fails_on_its_own_figure_only() {
        assert_eq!(missed(&results(&sample(600.0, 1.5, 0.3), 149.0)), [""; 0]);
        for (native, memory_mb, word) in [
            (sample(590.0, 1.0, 0.2), 100.0, "calls/s of the skeleton"),
            (sample(900.0, 1.6, 0.2), 100.0, "p50"),
            (sample(900.0, 1.0, 0.4), 100.0, "CPU"),
            (sample(900.0, 1.0, 0.2), 151.0, "PSS"),
            (failing(sample(900.0, 1.0, 0.2)), 100.0, "without their own answer"),
        ] {
            let missed = missed(&results(&native, memory_mb));
            assert!(missed.len() == 1 && missed[0].contains(word), "{word}: {missed:?}");
        }
    }

    #[test]
    fn composing_prompts_has_gates_of_its_own() {
        for (prompts, word) in
            [(Prompts { kept_ms: 0.3, read_ms: 1.0 }, "keeps"), (Prompts { kept_ms: 0.1, read_ms: 11.0 }, "PostgreSQL")]
        {
            let mut results = results(&sample(900.0, 1.0, 0.2), 100.0);
            results.set_prompts(prompts);
            let missed = missed(&results);
            assert!(missed.len() == 1 && missed[0].contains(word), "{word}: {missed:?}");
        }
    }

    #[test]
    fn what_was_not_measured_does_not_pass() {
        assert_eq!(missed(&Results::default()).len(), 8);
    }
}
