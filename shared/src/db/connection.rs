//! What every statement of a transaction runs on. sqlx gives a statement a name on the server unless
//! the query says otherwise, one by one; behind a transaction pooler the name would stay on a
//! connection that the next transaction does not get, and meet another client's of the same name.
//! Here it is decided once, for queries that know nothing of it.

use futures::{future::BoxFuture, stream::BoxStream};
use sqlx::{
    Describe, Either, Execute, Executor, PgConnection, Postgres, SqlStr,
    error::BoxDynError,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};

use crate::config::PoolMode;

/// A transaction's connection.
#[derive(Debug)]
pub(super) struct Connection<'c> {
    inner: &'c mut PgConnection,
    mode: PoolMode,
}

impl<'c> Connection<'c> {
    pub(super) const fn new(inner: &'c mut PgConnection, mode: PoolMode) -> Self {
        Self { inner, mode }
    }

    fn prepared<E>(&self, query: E) -> Prepared<E> {
        Prepared { query, keeps: self.mode == PoolMode::Session }
    }
}

/// A query, and whether the server may keep it under a name.
struct Prepared<E> {
    query: E,
    keeps: bool,
}

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Prepared<E> {
    fn sql(self) -> SqlStr {
        self.query.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.query.take_arguments()
    }

    fn persistent(&self) -> bool {
        self.keeps && self.query.persistent()
    }
}

impl<'c> Executor<'c> for Connection<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let query = self.prepared(query);
        self.inner.fetch_many(query)
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let query = self.prepared(query);
        self.inner.fetch_optional(query)
    }

    /// Only for statements that a caller keeps itself; nothing here does.
    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        self.inner.prepare_with(sql, parameters)
    }

    /// The trait asks for it; only checked macros, of which there are none, would use it.
    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        self.inner.describe(sql)
    }
}
