//! The queue's promises (docs/queue.md), each shown on a real system. They run after everything else and
//! one at a time, since what they measure should not be another test; only those about accidents, which
//! wait more than they do, run on four systems side by side. Small counts unless `SWITCHBOARD_FULL` is set.

use std::{panic::AssertUnwindSafe, sync::Arc};

use libtest_mimic::{Arguments, Trial};
use stack::Options;

use crate::{
    leftovers,
    world::{System, World},
};

pub(crate) mod accidents;
mod crashes;
mod cuts;
mod deadlines;
mod drains;
mod fairness;
mod files;
mod lanes;
mod limits;
mod load;
mod members;
mod outages;
mod overload;
pub(crate) mod recorder;
pub(crate) mod relay;
mod scale;
mod sessions;

/// True when every count is to be in full.
fn full() -> bool {
    std::env::var_os("SWITCHBOARD_FULL").is_some()
}

/// Tests on one system that they load without breaking it.
macro_rules! together {
    ($world:ident; $($module:ident { $($test:ident),* $(,)? })*) => {
        vec![$($({
            let world = Arc::clone(&$world);
            trial(concat!("promises::", stringify!($module), "::", stringify!($test)), move || world.run($module::$test))
        },)*)*]
    };
}

/// Tests that each have a system of their own, made by the function that stands behind them.
macro_rules! apart {
    ($($module:ident { $($test:ident: $adjust:path),* $(,)? })*) => {
        vec![$($(
            trial(concat!("promises::", stringify!($module), "::", stringify!($test)), || alone($adjust, $module::$test)),
        )*)*]
    };
}

/// True unless only other tests are asked for: each of these four groups says how many it ran.
pub(crate) fn are_asked_for(arguments: &Arguments) -> bool {
    let named = arguments.filter.as_ref().is_none_or(|filter| filter.contains("promises"));
    named && !arguments.skip.iter().any(|skip| "promises::".starts_with(skip.as_str()))
}

/// Runs all of them; true when every promise held and nothing was left behind.
pub(crate) fn run(arguments: &Arguments) -> bool {
    let world = Arc::new(World::with(steady));
    let on_one = together!(world;
        limits {
            no_organization_ever_runs_more_calls_at_once_than_its_limit,
            a_changed_limit_is_obeyed_within_moments_and_cuts_nobody,
            a_paused_organization_starts_nothing_and_goes_on_by_itself,
        }
        deadlines {
            a_call_that_expires_in_the_queue_never_touches_the_upstream,
            a_hanging_call_is_cut_at_its_deadline_and_its_slot_is_free,
        }
        fairness {
            a_flood_of_one_organization_hardly_changes_anothers_pace,
            a_slow_upstream_of_one_organization_delays_nobody_else,
        }
    );
    let (broken, accidents): (Vec<_>, Vec<_>) = accidents::by_system().into_iter().unzip();
    let accidents: Vec<_> = accidents.into_iter().flatten().collect();
    let small = Arc::new(World::with(overload::narrow));
    let overload = together!(small;
        overload {
            a_full_worker_loses_no_delivery,
            a_full_worker_runs_no_more_and_leaves_the_rest_to_others,
        }
        scale {
            more_workers_do_more,
        }
    );
    let on_their_own = apart!(
        deadlines {
            exactly_the_bound_is_accepted_and_the_rest_is_told_when_to_come_back: deadlines::bounded,
        }
        files {
            a_full_store_refuses_and_takes_again_once_something_goes: files::with_little_room,
        }
        scale {
            a_thousand_active_organizations_among_ten_thousand_cost_little: scale::crowded,
        }
    );
    let arguments = Arguments { test_threads: Some(1), ..arguments.clone() };
    let first = libtest_mimic::run(&arguments, on_one);
    let clean = leftovers::check(&world);
    // All begin and wait for their system: so every system is always in use.
    let side_by_side = Arguments { test_threads: Some(accidents.len()), ..arguments.clone() };
    let staged = libtest_mimic::run(&side_by_side, accidents);
    // Each is looked at, whatever was left of another.
    let left = broken.iter().filter(|system| !leftovers::check(system.world())).count();
    let full = libtest_mimic::run(&arguments, overload);
    let emptied = leftovers::check(&small);
    let last = libtest_mimic::run(&arguments, on_their_own);
    clean && left == 0 && emptied && ![first, staged, full, last].iter().any(libtest_mimic::Conclusion::has_failed)
}

/// The suite that goes through the `FastMCP` service repeats what a client may change; these promises
/// are the queue's.
fn trial(name: &'static str, run: impl FnOnce() + Send + 'static) -> Trial {
    let test = Trial::test(name, move || {
        run();
        Ok(())
    });
    let elsewhere = std::env::var_os("SWITCHBOARD_FORCE_FASTMCP").is_some();
    test.with_ignored_flag(elsewhere)
}

/// Runs a test on a system of its own, which it may break, and stops that system whatever happens.
/// Messages or processes left behind fail the test.
fn alone<T: Future<Output = ()>>(adjust: fn(&mut Options), test: impl FnOnce(Arc<System>) -> T) {
    let world = World::with(adjust);
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| world.run(test)));
    let clean = leftovers::check(&world);
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
    assert!(clean, "something was left behind");
}

/// Several workers, and room for the flood of the fairness test.
fn steady(options: &mut Options) {
    options.workers_per_pool = if full() { 4 } else { 2 };
    options.worker_env.push(("QUEUE_CALLS_PER_ORGANIZATION".to_owned(), "12000".to_owned()));
}
