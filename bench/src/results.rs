//! What was measured, and the figures drawn from it: medians over rounds, and ratios taken within a round before the
//! median, because a machine that others use is as fast as it is only for a minute.

use std::collections::BTreeMap;

use crate::measure::Sample;
use crate::plan::{Cell, Level};
use crate::prompts::Prompts;
use crate::targets::Target;

/// All samples of a run.
#[derive(Debug, Default)]
pub(crate) struct Results(BTreeMap<(Level, Target), BTreeMap<u8, Sample>>, Option<Prompts>);

impl Results {
    /// Adds one.
    pub(crate) fn add(&mut self, cell: Cell, sample: Sample) {
        self.0.entry((cell.level, cell.target)).or_default().insert(cell.round, sample);
    }

    /// Notes what composing a prompt takes.
    pub(crate) const fn set_prompts(&mut self, prompts: Prompts) {
        self.1 = Some(prompts);
    }

    /// What composing a prompt takes, if it was measured.
    pub(crate) const fn prompts(&self) -> Option<Prompts> {
        self.1
    }

    /// The median over rounds of a figure; none where nothing was measured.
    pub(crate) fn median(&self, level: Level, target: Target, figure: impl Fn(&Sample) -> f64) -> Option<f64> {
        median(self.0.get(&(level, target))?.values().map(figure).collect())
    }

    /// The median over rounds of the ratio of one target's figure to another's in the same round.
    pub(crate) fn ratio(
        &self,
        level: Level,
        target: Target,
        other: Target,
        figure: impl Fn(&Sample) -> f64,
    ) -> Option<f64> {
        let others = self.0.get(&(level, other))?;
        let pairs =
            self.0.get(&(level, target))?.iter().filter_map(|(round, sample)| Some((sample, others.get(round)?)));
        median(pairs.map(|(one, other)| figure(one) / figure(other)).filter(|ratio| ratio.is_finite()).collect())
    }

    /// The largest of a figure over all rounds.
    pub(crate) fn largest(&self, level: Level, target: Target, figure: impl Fn(&Sample) -> f64) -> Option<f64> {
        self.0.get(&(level, target))?.values().map(figure).reduce(f64::max)
    }

    /// Calls without a good answer in all rounds, and what the first was.
    pub(crate) fn errors(&self, level: Level, target: Target) -> (u32, Option<&str>) {
        let samples = self.0.get(&(level, target));
        let figures = || samples.into_iter().flat_map(BTreeMap::values).map(|sample| &sample.figures);
        (figures().map(|figures| figures.errors).sum(), figures().find_map(|figures| figures.first_error.as_deref()))
    }

    /// Calls without a good answer of all targets of a kind; none where none was measured.
    pub(crate) fn all_errors(&self, is_meant: impl Fn(Target) -> bool) -> Option<u32> {
        let meant = self.0.iter().filter(|((_, target), _)| is_meant(*target));
        let errors = meant.flat_map(|(_, samples)| samples.values().map(|sample| sample.figures.errors));
        errors.reduce(u32::saturating_add)
    }

    /// CPU seconds per 1,000 calls by name of process, in the order of the first sample; medians.
    pub(crate) fn by_process(&self, level: Level, target: Target) -> Vec<(String, f64)> {
        let Some(samples) = self.0.get(&(level, target)) else { return Vec::new() };
        let parts = |sample: &Sample| [sample.cpu_s_per_1k.clone(), sample.beside_cpu_s_per_1k.clone()].concat();
        let mut names: Vec<String> = Vec::new();
        for (name, _) in samples.values().flat_map(parts) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let of = |name: &str, sample: &Sample| -> f64 {
            parts(sample).iter().filter(|(known, _)| known == name).map(|(_, spent)| spent).sum()
        };
        let figure = |name: String| {
            let spent = median(samples.values().map(|sample| of(&name, sample)).collect())?;
            Some((name, spent))
        };
        names.into_iter().filter_map(figure).collect()
    }
}

/// CPU seconds per 1,000 calls of a target's own processes.
pub(crate) fn cpu(sample: &Sample) -> f64 {
    sample.cpu_s_per_1k.iter().map(|(_, spent)| spent).sum()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::load::tally::Figures;

    /// A sample with these calls per second, p50 in milliseconds and CPU seconds per 1,000 calls.
    pub(crate) fn sample(calls_per_s: f64, p50_ms: f64, cpu_s_per_1k: f64) -> Sample {
        Sample {
            figures: Figures { calls_per_s, p50_ms, ..Figures::default() },
            cpu_s_per_1k: vec![("process".to_owned(), cpu_s_per_1k)],
            ..Sample::default()
        }
    }

    fn rate(sample: &Sample) -> f64 {
        sample.figures.calls_per_s
    }

    #[test]
    fn a_ratio_compares_within_a_round_and_is_not_moved_by_a_round_in_which_the_machine_was_slow() {
        let level = Level::echo(64);
        let mut results = Results::default();
        for (round, skeleton, native) in [(0, 1_000.0, 800.0), (1, 100.0, 80.0), (2, 2_000.0, 1_000.0)] {
            results.add(Cell { round, level, target: Target::Skeleton }, sample(skeleton, 1.0, 1.0));
            results.add(Cell { round, level, target: Target::Native }, sample(native, 1.0, 1.0));
        }
        assert_eq!(results.ratio(level, Target::Native, Target::Skeleton, rate), Some(0.8));
        assert_eq!(results.median(level, Target::Native, rate), Some(800.0));
        assert_eq!(results.ratio(level, Target::Native, Target::Direct, rate), None);
    }

    #[test]
    fn processes_of_one_name_are_summed() {
        let level = Level::echo(1);
        let mut results = Results::default();
        let twice = vec![("worker tool".to_owned(), 0.1), ("worker tool".to_owned(), 0.2), ("gateway".to_owned(), 0.5)];
        let cell = Cell { round: 0, level, target: Target::Native };
        results.add(cell, Sample { cpu_s_per_1k: twice, ..Sample::default() });
        let found = results.by_process(level, Target::Native);
        assert_eq!(found.len(), 2);
        assert!((found[0].1 - 0.3).abs() < 1e-9 && found[1] == ("gateway".to_owned(), 0.5));
    }

    #[test]
    fn the_median_of_an_even_number_of_rounds_lies_between_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
