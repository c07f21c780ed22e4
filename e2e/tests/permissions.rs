//! What a role must not do is refused by the server that the role speaks to, NATS or PostgreSQL, and
//! not by the goodwill of our own code: whoever takes a process over holds its password.

mod acts;
mod administration;
mod database;
mod eavesdropping;
mod forging;
mod functions;
mod replies;
mod wire;

pub(crate) use self::{
    acts::every_role_is_held_to_its_subjects,
    administration::{
        a_consumer_into_a_command_subject_forges_no_command, a_consumer_into_the_gateways_inbox_steals_no_work,
        a_heartbeat_cannot_wipe_those_of_others, only_the_administrator_administers_streams,
        the_api_is_closed_where_calls_wait,
    },
    database::{
        a_pool_cannot_become_another_role, a_pool_cannot_create_or_weaken_anything,
        a_pool_cannot_reach_another_pools_tables, a_pool_cannot_turn_row_security_off, attempt,
    },
    eavesdropping::{
        a_secret_on_its_way_is_heard_by_no_other_role, replies_to_the_gateway_are_heard_by_the_gateway_only,
        work_is_heard_by_workers_only,
    },
    forging::{
        a_direct_command_of_another_organization_is_refused,
        a_queued_message_with_a_forged_reply_is_refused_and_acknowledged,
        an_undecodable_or_unknown_command_is_answered_and_harms_nobody,
        undecodable_or_unknown_queued_messages_are_answered_and_acknowledged,
        what_another_account_holds_is_no_delivery, who_hears_lanes_can_make_no_delivery,
    },
    functions::every_function_is_its_pools_alone,
    replies::{an_answer_carries_no_role_past_its_permissions, forged_news_are_not_believed_and_hide_no_genuine_ones},
};

/// Every role on the bus, by the name of its user. Written down here and not read from the code
/// under test: a new role must be thought about.
const ROLES: [&str; 6] = ["gateway", "session", "token", "tool", "audit", "controller"];
/// The user in JetStream's own account.
const ADMINISTRATOR: &str = "jetstream";
/// Who publishes calls, in the queue's account.
const CALLER: &str = "caller";
/// Who works them off there.
const LISTENER: &str = "lanes";
/// Those roles that are pools.
const POOLS: [&str; 5] = ["session", "token", "tool", "audit", "controller"];
