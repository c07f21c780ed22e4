//! One organization against another, both ways: every route of the API with the other's ids and
//! names, and every table of the database with the other's rows. What is not yours is not there.

mod catalogue;
mod foreign;
mod members;
mod routes;
mod tables;

pub(crate) use self::{
    catalogue::{a_table_that_breaks_a_rule_of_the_catalogue_is_named, the_catalogue_keeps_its_rules},
    foreign::{
        a_route_without_a_case_is_noticed, another_organizations_things_are_as_unknown_as_nothing,
        routes_without_a_token_tell_nothing_of_a_tenant,
    },
    members::{
        a_member_with_role_user_cannot_do_what_admins_do, a_members_own_configuration_is_unknown_to_the_rest,
        only_an_operator_creates_and_lists_organizations, register_own,
    },
    tables::{a_row_cannot_point_into_another_organization, every_table_is_closed_to_other_organizations},
};
