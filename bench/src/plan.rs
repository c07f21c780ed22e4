//! Which cells are measured, in which order. Neighbours in time are neighbours in the table: within a round, all
//! targets are measured at one number of callers before the next number.

use std::time::Duration;

use crate::arguments::Run;
use crate::shape::Shape;
use crate::targets::Target;

/// Callers of the two other shapes: many that wait, few that carry much.
const SLEEP_CALLERS: u16 = 256;
const BIG_CALLERS: u16 = 4;
/// What a cell takes beside its window: connecting, warming up, settling before and after.
const OVERHEAD: Duration = Duration::from_millis(1_300);
/// What the audit trail takes in addition, before and after: it reads what gathered in a second.
const AUDIT: Duration = Duration::from_secs(3);

/// What is called and by how many at once: one block of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Level {
    pub(crate) shape: Shape,
    pub(crate) callers: u16,
}

impl Level {
    pub(crate) fn echo(callers: u16) -> Self {
        Self { shape: Shape::Echo, callers }
    }

    /// The block's heading.
    pub(crate) fn title(self) -> String {
        let callers = if self.callers == 1 { "1 caller".to_owned() } else { format!("{} callers", self.callers) };
        match self.shape {
            Shape::Echo => format!("echo 64 bytes, {callers}"),
            Shape::Sleep => format!("sleep 20 ms, {callers}"),
            Shape::Big => format!("result of 1 MB, {callers}"),
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) round: u8,
    pub(crate) level: Level,
    pub(crate) target: Target,
}

/// All cells in the order of their measurement.
pub(crate) fn cells(run: &Run) -> Vec<Cell> {
    let levels = levels(run);
    let mut targets = run.targets.clone();
    targets.sort_unstable();
    targets.dedup();
    let mut cells = Vec::new();
    for round in 0..run.rounds {
        for level in &levels {
            let wanted = targets.iter().filter(|target| round < rounds(**target, *level, run.rounds));
            cells.extend(wanted.map(|target| Cell { round, level: *level, target: *target }));
        }
    }
    cells
}

/// The blocks of the table.
pub(crate) fn levels(run: &Run) -> Vec<Level> {
    let mut callers = run.callers.clone();
    callers.sort_unstable();
    callers.dedup();
    let others =
        [Level { shape: Shape::Sleep, callers: SLEEP_CALLERS }, Level { shape: Shape::Big, callers: BIG_CALLERS }];
    callers.into_iter().map(Level::echo).chain(others).collect()
}

/// How long the run takes, targets that are slower than a window apart.
pub(crate) fn expected(run: &Run, cells: &[Cell]) -> Duration {
    let audit = |cell: &Cell| if cell.target.is_switchboard() { AUDIT } else { Duration::ZERO };
    cells.iter().map(|cell| run.window() + OVERHEAD + audit(cell)).sum()
}

/// Python is a hundred times slower than what it is compared with: fewer rounds settle it, and at 256 callers its
/// proxy would only show a queue of many seconds.
fn rounds(target: Target, level: Level, all: u8) -> u8 {
    let other_shape = level.shape != Shape::Echo;
    match target {
        Target::FastmcpProxy | Target::FastmcpProxyKept if other_shape || level.callers > 64 => 0,
        Target::FastmcpProxyKept => 1,
        // What promises cost is told by the echo.
        Target::Durable if other_shape => 0,
        Target::Fastmcp if other_shape => 1,
        Target::FastmcpProxy | Target::Fastmcp | Target::Durable => all.min(2),
        _ if other_shape => all.min(2),
        _ => all,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::Arguments;

    fn run(arguments: &[&str]) -> Run {
        Arguments::try_parse_from([&["bench"], arguments].concat()).unwrap().run
    }

    #[test]
    fn the_default_run_takes_less_than_eight_minutes() {
        let run = run(&[]);
        let expected = expected(&run, &cells(&run));
        assert!(expected > Duration::from_mins(4) && expected < Duration::from_mins(8), "{expected:?}");
    }

    #[test]
    fn what_is_compared_is_measured_one_after_the_other() {
        let cells = cells(&run(&["--targets", "native,skeleton", "--callers", "64,1", "--rounds", "2"]));
        let echo: Vec<_> = cells.iter().filter(|cell| cell.level.shape == Shape::Echo).collect();
        let order: Vec<_> = echo.iter().map(|cell| (cell.round, cell.level.callers, cell.target)).collect();
        let (skeleton, native) = (Target::Skeleton, Target::Native);
        assert_eq!(order[..4], [(0, 1, skeleton), (0, 1, native), (0, 64, skeleton), (0, 64, native)]);
        assert_eq!((order[4], order.len()), ((1, 1, skeleton), 8));
    }

    #[test]
    fn a_target_named_twice_is_measured_once() {
        let run = run(&["--targets", "direct,direct", "--callers", "1,1", "--rounds", "1"]);
        assert_eq!(cells(&run).iter().filter(|cell| cell.level == Level::echo(1)).count(), 1);
    }
}
