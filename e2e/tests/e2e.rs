//! The end-to-end tests: one binary, one real system, every test a sentence. The harness starts the
//! whole stack once; after the last test it looks whether anything was left behind, and that is a
//! test too.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a test harness talks to whoever runs it")]

use std::{process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Trial};

mod answers;
mod architecture;
mod bad_bodies;
mod bad_input;
mod bad_wire;
mod calls;
mod configurations;
mod cors;
mod earlier_mistakes;
mod ends;
mod faulty;
mod files;
mod fuzz;
mod hostile;
mod identity;
mod isolation;
mod leftovers;
mod members;
mod openapi;
mod organizations;
mod payloads;
mod permissions;
mod pooler;
mod programs;
mod promises;
mod prompts;
mod roles;
mod rotation;
mod schemas;
mod secrecy;
mod servers;
mod sessions;
mod supabase;
mod trail;
mod upstreams;
mod users;
mod work_breakdown;
mod workspaces;
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

#[expect(clippy::too_many_lines, reason = "a list of tests")]
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
        isolation {
            a_route_without_a_case_is_noticed,
        }
        openapi {
            every_operation_of_the_table_is_in_the_document_once,
            no_route_is_made_beside_the_table,
            the_document_is_valid_openapi,
            components_are_named_and_used,
            the_document_is_as_it_was_reviewed,
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
        upstreams {
            every_kind_of_server_is_listed_and_called_by_every_client,
            a_call_finds_a_tool_that_nobody_listed_before,
            the_right_token_opens_a_protected_server_and_is_never_shown,
            a_wrong_or_missing_token_asks_to_reconnect_and_is_never_shown,
            what_servers_are_asked_is_measured_by_client_and_end,
            a_definition_that_changes_after_pinning_is_listed_as_changed_and_not_called,
            arguments_that_break_the_pinned_schema_do_not_reach_the_server,
            every_failure_of_a_server_has_its_documented_fault_in_time,
            a_server_that_is_down_is_a_failed_upstream_at_once,
            a_server_that_hangs_is_left_at_the_deadline_and_the_slot_is_free,
            a_call_ends_with_the_patience_of_its_configuration,
            fifty_calls_in_a_row_open_at_most_two_connections,
            two_organizations_never_share_a_session_of_a_server,
            a_removed_configuration_ends_its_session_on_the_server,
        }
        configurations {
            a_changed_definition_is_shown_with_its_difference_and_called_again_once_accepted,
            a_policy_of_warning_calls_a_changed_tool_by_what_is_offered_and_says_so,
            a_members_own_server_is_theirs_to_accept,
            an_admin_overrules_what_a_server_says_about_repeating,
            a_configuration_is_replaced_by_whoever_read_its_latest_generation,
            of_many_who_replace_the_same_generation_one_wins,
            a_name_is_unique_within_its_scope_on_replacing_too,
            bad_bodies_of_a_replacement_are_refused_by_field_and_change_nothing,
            a_replaced_configuration_is_obeyed_and_its_older_client_closed,
            a_secret_is_kept_unless_it_is_given_again_and_then_replaced_in_place,
            a_secret_does_not_follow_its_configuration_to_another_server,
            a_header_of_the_servers_own_carries_the_secret_to_it_and_nowhere_else,
            what_the_server_said_to_a_secret_is_shown_and_is_no_change,
            a_denied_tool_is_neither_listed_nor_pinned_nor_called,
            a_disabled_server_is_not_asked_until_it_is_enabled,
            no_call_is_refused_by_what_a_worker_kept,
            a_member_has_room_for_so_many_servers_and_no_more,
            lists_are_filtered_by_scope_transport_and_state,
            only_a_call_that_may_be_repeated_is_sent_again,
            a_trial_of_a_good_server_passes_every_stage_and_lists_its_tools,
            a_trial_says_at_which_stage_a_server_fails_and_what_to_do,
            a_trial_of_a_server_that_hangs_ends_within_its_limit,
            a_trial_tries_the_secret_and_never_shows_it,
            a_trial_of_a_saved_configuration_pins_its_tools_and_notes_its_secret,
            who_may_register_a_server_may_try_it_out_and_nobody_else,
        }
        hostile {
            no_hostile_address_can_be_registered,
            a_hostile_address_that_got_into_the_database_is_refused_at_the_call,
            no_hostile_address_can_be_tried_out,
            no_redirect_leads_to_a_hostile_address_or_another_origin,
            the_service_listens_to_holders_of_the_key_only,
            the_service_reaches_nothing_without_the_workers_proxy,
            what_the_proxy_refuses_the_service_calls_unreachable,
            a_servers_own_refusal_is_not_taken_for_the_proxys,
        }
        programs {
            a_program_of_the_catalogue_is_listed_and_called_like_any_server,
            members_see_names_and_descriptions_of_the_catalogue_and_nothing_else,
            a_command_never_comes_in_through_the_api,
            a_program_is_tried_out_like_any_server,
            a_trial_of_a_saved_program_leaves_the_one_in_use_alone,
            a_program_that_left_the_catalogue_is_told_so_and_can_be_disabled,
            a_changed_program_starts_in_an_empty_directory,
            a_configuration_may_turn_into_a_program_and_back,
            a_program_learns_no_secret_of_ours,
            two_organizations_and_two_members_never_share_a_workspace,
            a_removed_configuration_ends_its_program_and_takes_its_workspace_along,
            a_program_that_dies_fails_its_call_and_is_started_for_the_next,
            a_program_that_hangs_is_left_at_the_deadline_and_told_so,
        }
        workspaces {
            a_program_reads_what_was_put_by_http_and_http_what_it_writes,
            no_other_session_finds_its_files_by_any_path,
            what_is_no_file_is_not_kept_and_told,
            what_does_not_fit_is_refused_and_the_directory_brought_back,
            calls_at_once_in_one_session_keep_all_their_files,
            the_end_of_a_session_ends_its_programs_and_removes_its_directory,
            a_session_is_its_members_alone_and_only_while_it_lasts,
            a_session_that_is_called_in_does_not_become_idle,
            a_call_longer_than_the_idle_time_keeps_its_session_in_use,
            a_call_that_writes_a_thousand_files_keeps_all_of_them,
            what_changes_by_http_during_a_call_stays_beside_what_the_call_writes,
            sessions_share_no_client_and_take_theirs_along,
        }
        payloads {
            tools_and_results_that_are_handed_on_are_valid_mcp,
            what_is_sent_to_a_modern_server_is_valid_mcp_with_its_headers,
            what_is_sent_to_a_handshake_server_is_valid_mcp_in_its_session,
        }
    );
    trials!(all, world;
        identity {
            a_token_that_cannot_be_believed_is_refused_and_nothing_is_sent,
            a_request_without_a_bearer_token_is_challenged_without_an_error,
            every_route_of_the_api_asks_for_a_token_first,
            a_flood_of_unknown_key_ids_costs_a_bounded_number_of_look_ups,
            a_token_for_an_organization_that_does_not_exist_is_forbidden,
        }
        members {
            a_removed_member_is_refused_within_seconds_and_stays_refused,
            a_disabled_member_is_refused_until_enabled,
            the_lower_of_claimed_and_stored_role_applies,
            first_use_makes_one_row_under_twenty_concurrent_requests,
            a_removed_member_is_refused_by_every_gateway_also_after_a_reconnect,
            a_queued_call_of_a_member_removed_meanwhile_does_not_run,
        }
        answers {
            answers_that_come_fast_share_messages_and_each_is_recorded,
            a_record_leaves_its_stream_once_the_table_has_it_and_one_that_cannot_be_kept_stays,
        }
        ends {
            a_subscription_that_ends_loses_nothing_where_little_comes,
        }
        organizations {
            an_operator_creates_reads_changes_and_lists_organizations,
            the_bounds_that_are_promised_are_those_that_the_database_keeps,
            an_admin_chooses_for_their_organization_and_touches_no_limit,
            a_change_of_what_was_not_read_is_refused,
            bad_changes_of_an_organization_are_refused_by_field_and_keep_nothing,
            calls_above_the_rate_are_refused_before_anything_is_published,
            a_queue_of_its_own_is_full_before_the_deployments,
            a_call_whose_client_left_keeps_its_place,
            a_deleted_organization_is_refused_everywhere_and_its_lane_goes,
        }
        users {
            an_admin_adds_changes_removes_and_puts_back_a_member,
            the_last_active_admin_stays_one,
            one_person_in_two_organizations_sees_both_and_acts_in_one,
            no_admin_can_become_an_operator,
            bad_bodies_of_a_member_are_refused_by_field_and_keep_nothing,
            pages_of_members_show_everybody_once_and_in_order,
            an_organization_has_room_for_so_many_members_and_no_more,
        }
        sessions {
            a_session_is_opened_read_listed_and_ended,
            a_sessions_prompt_does_not_change_any_more,
            bad_bodies_of_a_session_are_refused_by_field_and_keep_nothing,
            members_see_their_own_sessions_and_admins_everybodys,
            pages_of_sessions_show_every_one_once_and_by_state,
            a_session_is_used_by_its_member_alone_and_while_it_lasts,
            of_two_hundred_openings_at_once_exactly_the_limit_succeeds,
            whoever_opens_and_ends_without_end_is_slowed_down,
            an_organizations_limit_holds_for_its_members_together,
            an_ended_session_is_told_to_everybody_who_keeps_something_of_it,
            a_session_expires_when_it_is_idle_or_old_and_the_trail_says_so_once,
            short_lives_end_by_themselves,
            a_removed_or_disabled_members_sessions_end,
            a_deleted_organizations_sessions_end,
            a_session_that_has_long_been_over_is_forgotten,
            an_ended_session_cannot_be_revived,
            a_member_hears_their_own_sessions_and_an_admin_everybodys,
            a_touch_and_an_expiry_are_heard,
            who_comes_back_goes_on_after_the_last_event_they_heard,
            what_the_stream_has_forgotten_is_told_as_a_gap,
            a_stream_ends_with_its_token,
            a_stream_ends_with_its_membership,
            a_member_has_so_many_streams_and_gets_one_back,
            a_reader_that_does_not_keep_up_is_cut_and_goes_on_later,
        }
        prompts {
            whose_a_prompt_is_decides_who_writes_it,
            the_database_lets_nobody_write_what_is_not_theirs,
            a_prompts_name_is_unique_among_its_owners,
            what_was_written_of_a_prompt_stands_in_the_trail,
            every_write_of_a_prompt_is_a_version_that_outlives_it,
            of_many_who_replace_the_same_version_of_a_prompt_one_wins,
            a_prompt_changed_by_hand_is_a_version_too,
            a_preview_shows_all_four_layers_with_their_provenance,
            an_admin_sees_what_a_member_gets_and_nobody_else_does,
            what_a_user_wrote_is_cleaned_fenced_and_flagged_but_not_rewritten,
            what_a_template_is_told_is_data,
            a_write_is_in_what_every_worker_composes_next,
            a_session_is_opened_with_the_latest_of_every_prompt,
            what_a_template_is_told_of_a_person_and_an_organization_is_the_latest,
            a_hostile_template_is_refused_on_save_and_no_worker_minds,
            a_hostile_template_in_the_database_is_not_rendered,
            a_template_that_turns_into_too_much_is_refused_by_its_name,
            bad_bodies_of_a_prompt_are_refused_by_field_and_keep_nothing,
            there_is_room_for_so_many_prompts_and_so_much_text,
        }
        roles {
            every_command_is_for_the_roles_that_are_meant,
        }
        cors {
            a_page_of_a_registered_origin_calls_and_reads_answers_and_errors,
            a_page_of_any_other_origin_is_refused_and_nothing_is_published,
            the_gateways_own_pages_need_no_registration,
        }
        supabase {
            plain_postgresql_gets_the_claim_helpers,
            an_auth_schema_that_is_there_is_left_alone,
            only_supabases_own_role_calls_the_hook,
            the_hook_names_an_organization_that_the_person_is_an_active_member_of,
            a_token_with_the_hooks_claims_is_let_in,
        }
        earlier_mistakes {
            the_schema_loads_into_an_empty_database_and_loads_again,
            no_policy_asks_its_own_table,
            an_admin_of_one_organization_writes_nothing_into_another,
            a_removed_member_stays_in_the_trail_and_no_record_changes,
            a_limit_is_each_organizations_own,
            a_global_prompt_comes_first_whatever_its_priority,
            what_an_admin_wrote_is_not_rewritten,
        }
        files {
            files_of_every_size_come_back_byte_for_byte_under_their_tag,
            a_body_without_a_length_is_kept_like_one_with_it,
            a_file_is_handed_out_as_bytes_that_no_browser_shows,
            what_is_written_over_is_another_content_and_the_old_one_goes,
            files_are_listed_by_path_in_pages_and_by_their_beginning,
            a_file_that_is_known_is_not_sent_again,
            a_condition_that_does_not_hold_changes_nothing,
            of_many_who_write_one_path_at_once_one_wins_whole,
            whoever_reads_while_others_write_gets_one_content_or_sees_that_it_is_not_whole,
            a_hostile_path_is_refused_by_the_rule_that_it_breaks,
            what_only_looks_like_an_attack_is_a_name_and_is_decoded_once,
            a_file_is_not_where_a_directory_is,
            a_file_over_sixteen_mebibytes_is_refused_with_and_without_a_length,
            a_session_that_is_full_says_so_and_has_room_again_once_something_goes,
            a_session_has_room_for_so_many_files_and_no_more,
            an_organization_has_room_for_so_much_in_all_its_sessions,
            what_is_no_whole_file_as_it_is_is_refused,
            nobody_else_reaches_a_members_files,
            a_members_sessions_have_each_their_own_files,
            a_session_that_is_over_gives_and_takes_nothing,
            using_files_keeps_a_session_alive,
            a_session_that_ends_or_expires_leaves_nothing_in_the_stream,
            an_upload_that_nobody_goes_on_with_is_given_up,
            a_row_stays_until_no_part_of_it_can_be_on_its_way,
            an_upload_that_breaks_off_changes_nothing_and_gives_its_room_back,
            a_file_that_goes_while_it_is_read_is_cut_and_never_completed,
            a_part_that_is_not_what_its_row_says_is_not_handed_out_as_the_end,
        }
        bad_input {
            bad_bodies_of_a_tool_call_are_refused_by_field,
            bad_bodies_of_a_configuration_are_refused_by_field_and_keep_nothing,
            bad_bodies_of_an_organization_are_refused_by_field_and_keep_nothing,
            arguments_that_break_the_pinned_schema_do_not_touch_the_server,
            what_is_unknown_and_what_is_anothers_are_told_apart_by_nobody,
            malformed_ids_cursors_limits_and_parameters_are_refused_by_name,
            routes_and_methods_that_do_not_exist_say_so,
            a_duplicate_name_is_a_conflict,
            a_body_that_is_not_json_by_its_own_word_is_refused,
            odd_but_honest_arguments_arrive_as_they_are,
            long_numbers_reach_the_server_digit_by_digit,
        }
        bad_wire {
            a_body_over_one_mebibyte_is_refused_with_and_without_a_length,
            a_body_that_breaks_off_is_never_acted_upon,
            what_two_framings_smuggle_is_no_second_request,
            a_request_id_or_trace_context_cannot_carry_a_header,
            requests_that_are_no_http_are_closed_without_harm,
        }
        fuzz {
            mutated_tool_calls_are_never_our_failure,
            mutated_configurations_are_never_our_failure,
            mutated_organizations_are_never_our_failure,
        }
        openapi {
            the_served_document_says_which_methods_every_path_has,
            the_page_of_the_document_needs_nothing_from_elsewhere,
        }
    );
    trials!(all, world;
        isolation {
            another_organizations_things_are_as_unknown_as_nothing,
            routes_without_a_token_tell_nothing_of_a_tenant,
            a_members_own_configuration_is_unknown_to_the_rest,
            a_member_with_role_user_cannot_do_what_admins_do,
            only_an_operator_creates_and_lists_organizations,
            every_table_is_closed_to_other_organizations,
            a_row_cannot_point_into_another_organization,
            the_catalogue_keeps_its_rules,
            a_table_that_breaks_a_rule_of_the_catalogue_is_named,
        }
        permissions {
            every_role_is_held_to_its_subjects,
            replies_to_the_gateway_are_heard_by_the_gateway_only,
            work_is_heard_by_workers_only,
            a_secret_on_its_way_is_heard_by_no_other_role,
            a_consumer_into_the_gateways_inbox_steals_no_work,
            a_consumer_into_a_command_subject_forges_no_command,
            only_the_administrator_administers_streams,
            a_heartbeat_cannot_wipe_those_of_others,
            a_direct_command_of_another_organization_is_refused,
            an_undecodable_or_unknown_command_is_answered_and_harms_nobody,
            a_queued_message_with_a_forged_reply_is_refused_and_acknowledged,
            undecodable_or_unknown_queued_messages_are_answered_and_acknowledged,
            what_another_account_holds_is_no_delivery,
            the_api_is_closed_where_calls_wait,
            who_hears_lanes_can_make_no_delivery,
            a_pool_cannot_reach_another_pools_tables,
            a_pool_cannot_become_another_role,
            a_pool_cannot_create_or_weaken_anything,
            a_pool_cannot_turn_row_security_off,
            every_function_is_its_pools_alone,
            an_answer_carries_no_role_past_its_permissions,
            forged_news_are_not_believed_and_hide_no_genuine_ones,
        }
    );
    let talkative = Arc::new(World::with(secrecy::at_trace));
    trials!(all, talkative;
        secrecy {
            a_secret_of_any_field_comes_out_nowhere,
        }
        // Workers come and go in these.
        rotation {
            a_key_that_is_due_is_replaced_by_the_next_secret_and_workers_seal_the_rest,
            a_worker_without_a_key_that_is_needed_does_not_start,
        }
    );
    let doubled = Arc::new(World::with(workspaces::accidents::two_workers));
    {
        use workspaces::accidents;
        trials!(all, doubled;
            accidents {
                a_session_goes_on_with_its_files_when_worker_and_host_are_killed,
                a_call_whose_worker_is_killed_leaves_the_workspace_to_others,
            }
        );
    }
    let rotated = Arc::new(World::with(rotation::two_keys));
    trials!(all, rotated;
        rotation {
            keys_rotate_under_load_and_nothing_fails_or_stays_behind,
        }
    );
    let pooled = Arc::new(World::with(pooler::before_the_database));
    trials!(all, pooled;
        pooler {
            every_command_works_through_a_transaction_pooler,
        }
    );
    // A stranger's clone has no schemas beside it: said in the output, and no failure.
    let lacks_schemas = |trial: &Trial| trial.name().starts_with("payloads::") && !schemas::are_here();
    // No registry of the locked environment has a pooler: said in the output, and no failure.
    let lacks_pooler = |trial: &Trial| trial.name().starts_with("pooler::") && !pooler::is_here();
    let all = all.into_iter().map(|trial| {
        let lacks = lacks_schemas(&trial) || lacks_pooler(&trial);
        trial.with_ignored_flag(lacks)
    });
    let conclusion = libtest_mimic::run(&arguments, all.collect());
    let clean = [&world, &talkative, &doubled, &rotated, &pooled].map(|world| leftovers::check(world)) == [true; 5];
    let kept = if promises::are_asked_for(&arguments) {
        promises::run(&arguments)
    } else {
        println!("The queue's promises were not asked for.");
        true
    };
    if conclusion.has_failed() || !clean || !kept { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
