//! The end-to-end tests: one binary, one real system, every test a sentence. The harness starts the
//! whole stack once; after the last test it looks whether anything was left behind, and that is a
//! test too.

use std::{process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Trial};

mod architecture;
mod calls;
mod faulty;
mod leftovers;
mod work_breakdown;
mod world;

use world::World;

/// The tests of one module, by name.
macro_rules! trials {
    ($all:ident, $world:ident; $($module:ident { $($test:ident),* $(,)? })*) => {
        $($({
            let world = Arc::clone(&$world);
            let name = concat!(stringify!($module), "::", stringify!($test));
            $all.push(Trial::test(name, move || {
                world.run($module::$test);
                Ok(())
            }));
        })*)*
    };
}

/// Tests that need no running system.
macro_rules! still {
    ($all:ident; $($module:ident { $($test:ident),* $(,)? })*) => {
        $($($all.push(Trial::test(concat!(stringify!($module), "::", stringify!($test)), || {
            $module::$test();
            Ok(())
        }));)*)*
    };
}

fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::from_args();
    let world = Arc::new(World::default());
    let mut all = Vec::new();
    still!(all;
        architecture {
            crates_depend_one_way,
            forbidden_imports_stand_nowhere,
            no_file_is_longer_than_the_hard_limit,
            contexts_are_built_in_two_places_only,
        }
        work_breakdown {
            every_row_of_the_work_breakdown_names_code_and_tests_that_exist,
            a_work_breakdown_that_claims_what_is_not_there_is_caught,
        }
    );
    trials!(all, world;
        calls {
            a_tool_is_called_through_the_whole_road,
            a_result_arrives_byte_for_byte,
            a_tool_that_says_no_is_a_result_and_not_a_fault,
            every_call_leaves_an_audit_row,
            the_request_id_travels_from_http_to_the_worker,
        }
    );
    let conclusion = libtest_mimic::run(&arguments, all);
    let clean = leftovers::check(&world);
    if conclusion.has_failed() || !clean { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
