//! What [`QueueBench`](super::QueueBench) found, as tables.

use serde::{Deserialize, Serialize};

use super::record::Figures;
use crate::table::Table;

/// Everything that was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueFigures {
    pub(super) jobs: usize,
    pub(super) tenants: usize,
    /// Leased while every tenant had more.
    pub(super) tasks: u64,
    /// From the first submission to the last plan.
    pub(super) queued_s: f64,
    /// While tasks were leased and clients asked.
    pub(super) window_s: f64,
    /// By tenant.
    pub(super) shares: Vec<TenantShare>,
    pub(super) latencies: Vec<Latency>,
}

/// What a tenant should get and got, from 0 to 1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TenantShare {
    pub(super) weight: u32,
    pub(super) fair: f64,
    pub(super) got: f64,
}

/// Of one kind of call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Latency {
    pub(super) call: String,
    pub(super) count: usize,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

impl TenantShare {
    /// How far from what is fair, of what is fair.
    fn off(&self) -> f64 {
        (self.got / self.fair - 1.0).abs()
    }
}

impl QueueFigures {
    /// How far the tenant is from its fair share that is the furthest from it.
    pub(super) fn furthest_off(&self) -> f64 {
        self.shares.iter().map(TenantShare::off).fold(0.0, f64::max)
    }

    /// Of the call whose p99 is the greatest.
    pub(super) fn slowest_p99_ms(&self) -> f64 {
        let p99s = self.latencies.iter().map(|latency| latency.p99_ms);
        p99s.fold(0.0, f64::max)
    }

    fn fairness(&self) -> Table {
        let mut table = Table::new(&[
            "weight",
            "tenants",
            "fair share",
            "least share",
            "greatest share",
            "furthest from fair",
        ]);
        let mut weights: Vec<u32> = self.shares.iter().map(|share| share.weight).collect();
        weights.sort_unstable();
        weights.dedup();
        for weight in weights {
            let of_weight = || {
                self.shares
                    .iter()
                    .filter(move |share| share.weight == weight)
            };
            let got = || of_weight().map(|share| share.got);
            let percent = |share: f64| format!("{:.2} %", share * 100.0);
            table.row(&[
                weight.to_string(),
                of_weight().count().to_string(),
                percent(of_weight().map(|share| share.fair).fold(0.0, f64::max)),
                percent(got().fold(1.0, f64::min)),
                percent(got().fold(0.0, f64::max)),
                percent(of_weight().map(TenantShare::off).fold(0.0, f64::max)),
            ]);
        }
        table
    }

    fn calls(&self) -> Table {
        let mut table = Table::new(&["call", "calls", "p50 ms", "p99 ms", "slowest ms"]);
        for latency in &self.latencies {
            table.row(&[
                latency.call.clone(),
                latency.count.to_string(),
                format!("{:.1}", latency.p50_ms),
                format!("{:.1}", latency.p99_ms),
                format!("{:.1}", latency.max_ms),
            ]);
        }
        table
    }
}

impl Figures for QueueFigures {
    const NAME: &'static str = "queue";

    fn markdown(&self) -> String {
        format!(
            "{} jobs of {} tenants, queued and planned in {:.1} s; then {} tasks leased in {:.1} s, \
             while every tenant had more:\n\n{}\n{}",
            self.jobs,
            self.tenants,
            self.queued_s,
            self.tasks,
            self.window_s,
            self.fairness(),
            self.calls()
        )
    }
}
