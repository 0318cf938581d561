//! Statements that are answered in time, or fail.
//!
//! A connection whose other end vanished without a word never answers, and the
//! kernel tries for a quarter of an hour before it says so. A request has its
//! own bound; a loop of the coordinator has nobody who waits for it, and would
//! plan and publish nothing all that time. So every statement is bounded here,
//! whoever asks.

use std::io;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use sqlx::any::{AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo};
use sqlx::{Any, Describe, Either, Error, Execute, Executor, SqlStr};
use tokio::time::timeout;

/// How long a statement may take, the wait for a connection included: as long
/// as the server itself lets one run.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Waits for an answer of the database, but not for ever. What was asked may
/// have been done.
pub(super) async fn in_time<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(ANSWER_MAX, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Io(io::ErrorKind::TimedOut.into())),
    }
}

/// Executes statements in time.
#[derive(Debug)]
pub(super) struct InTime<E>(pub(super) E);

impl<'c, E: Executor<'c, Database = Any>> Executor<'c> for InTime<E> {
    type Database = Any;

    fn fetch_many<'e, 'q: 'e, Q>(
        self,
        query: Q,
    ) -> BoxStream<'e, Result<Either<AnyQueryResult, AnyRow>, Error>>
    where
        'c: 'e,
        Q: 'q + Execute<'q, Any>,
    {
        let answers = self.0.fetch_many(query);
        let each_in_time = stream::unfold(answers, |mut answers| async move {
            let next = in_time(answers.next().map(Option::transpose)).await;
            Some((next.transpose()?, answers))
        });
        each_in_time.boxed()
    }

    fn fetch_optional<'e, 'q: 'e, Q>(self, query: Q) -> BoxFuture<'e, Result<Option<AnyRow>, Error>>
    where
        'c: 'e,
        Q: 'q + Execute<'q, Any>,
    {
        in_time(self.0.fetch_optional(query)).boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [AnyTypeInfo],
    ) -> BoxFuture<'e, Result<AnyStatement, Error>>
    where
        'c: 'e,
    {
        in_time(self.0.prepare_with(sql, parameters)).boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Any>, Error>>
    where
        'c: 'e,
    {
        in_time(self.0.describe(sql)).boxed()
    }
}
