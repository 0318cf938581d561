//! The witness in the database: triggers that keep every change of the rows
//! that matter. Only tests install them.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::record::Record;
use crate::component::postgres;

/// One table for all, so that one query reads it. `jsonb` costs some
/// microseconds a change and needs no column of its own for each of theirs.
const INSTALL: &str = "
    CREATE SCHEMA audit;
    CREATE TABLE audit.change (
        seq bigserial PRIMARY KEY, tx bigint NOT NULL, at_us bigint NOT NULL,
        entity text NOT NULL, before jsonb, after jsonb);
    CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO audit.change (tx, at_us, entity, before, after) VALUES (
            txid_current(), CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint),
            TG_TABLE_NAME,
            CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) - 'stats' END,
            CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) - 'stats' END);
        RETURN NULL;
    END $$;
    CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON job
        FOR EACH ROW EXECUTE FUNCTION audit.note();
    CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON task
        FOR EACH ROW EXECUTE FUNCTION audit.note();
    CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON upload
        FOR EACH ROW EXECUTE FUNCTION audit.note();
    CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON part
        FOR EACH ROW EXECUTE FUNCTION audit.note();";

/// A change locks its row before its number is drawn, so the numbers of one
/// row's changes are in the order of these.
const READ: &str = "
    SELECT jsonb_build_object('entity', entity, 'tx', tx, 'at_us', at_us,
                              'before', before, 'after', after)
    FROM audit.change ORDER BY seq";

/// The witness in one database.
#[derive(Debug, Clone)]
pub struct Audit {
    database: String,
    ordinal: u64,
}

impl Audit {
    /// Installs the triggers in a database that was made ready and that nobody
    /// uses yet. Those of one cluster have different ordinals.
    ///
    /// # Panics
    /// If the database does not take them.
    pub fn install(database: &str, ordinal: u64) -> Self {
        postgres::query(database, INSTALL);
        Self {
            database: database.to_owned(),
            ordinal,
        }
    }

    /// Adds everything that it has seen to a record.
    ///
    /// # Panics
    /// If the database does not answer.
    pub fn read_into(&self, record: &mut Record) {
        let rows = postgres::query(&self.database, READ);
        for row in rows.lines() {
            self.read(row, record);
        }
    }

    fn read(&self, row: &str, record: &mut Record) {
        let mut row: Value = serde_json::from_str(row).expect("a row is JSON");
        // Transactions of two databases may have the same number.
        let tx = row["tx"].as_u64().expect("a number");
        row["tx"] = (tx << 8 | self.ordinal).into();
        let entity = row["entity"].take();
        match entity.as_str() {
            Some("task") => record.tasks.push(typed(row)),
            Some("job") => record.jobs.push(typed(row)),
            Some("upload") => record.uploads.push(typed(row)),
            Some("part") => record.parts.push(typed(row)),
            other => panic!("{other:?} is not audited"),
        }
    }
}

fn typed<T: for<'a> Deserialize<'a>>(row: Value) -> T {
    serde_json::from_value(row).expect("a row of this schema")
}

/// A time as a message tells it: seconds before the record was taken.
pub(super) fn ago(record: &Record, at: Duration) -> String {
    let ago = record.taken_at.saturating_sub(at);
    format!("{:.3} s before the end", ago.as_secs_f64())
}
