//! What one process of a cluster is started with.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use chatvec::fault::{Failpoint, Mutant};

use crate::clock;
use crate::component::postgres;
use crate::proxy::Proxy;

/// Arguments, failpoints and addresses of a process; empty by default.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    args: Vec<String>,
    env: Vec<(&'static str, String)>,
    failpoints: String,
    slots: Option<u32>,
}

impl Setup {
    /// More arguments.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// Of a worker: other than two slots.
    #[must_use]
    pub fn with_slots(self, slots: u32) -> Self {
        let slots = Some(slots);
        Self { slots, ..self }
    }

    pub(super) fn slots(&self) -> u32 {
        self.slots.unwrap_or(2)
    }

    /// Another database than the cluster's first.
    #[must_use]
    pub fn database(self, url: &str) -> Self {
        self.variable("CHATVEC_DATABASE_URL", url.to_owned())
    }

    /// Asks the database of [`Setup::database`].
    ///
    /// # Panics
    /// If there is none, or it does not take the statement.
    pub fn query(&self, sql: &str) -> String {
        let url = self.value("CHATVEC_DATABASE_URL");
        postgres::query(url.expect("it has a database of its own"), sql)
    }

    /// The store by way of a proxy.
    #[must_use]
    pub fn store_through(self, proxy: &Proxy) -> Self {
        self.variable("AWS_ENDPOINT_URL", format!("http://{}", proxy.address()))
    }

    /// A clock that is off by an offset such as `+1h`.
    #[must_use]
    pub fn clock(self, offset: &str) -> Self {
        let environment = clock::shifted(offset).into_iter();
        environment.fold(self, |setup, (name, value)| setup.variable(name, value))
    }

    /// Any variable of the environment.
    #[must_use]
    pub fn variable(mut self, name: &'static str, value: String) -> Self {
        self.env.push((name, value));
        self
    }

    /// An action at a failpoint: `crash`, `crash:2`, `delay=50:*`, `error@out`.
    #[must_use]
    pub fn at(mut self, point: Failpoint, action: &str) -> Self {
        let separator = if self.failpoints.is_empty() { "" } else { ";" };
        write!(self.failpoints, "{separator}{}:{action}", point.name())
            .expect("a string takes all");
        self
    }

    /// A pause at the first hit of a failpoint, until the file is there.
    #[must_use]
    pub fn pause(self, point: Failpoint, until: &Path) -> Self {
        self.at(point, &format!("pause={}", until.display()))
    }

    /// A defect.
    #[must_use]
    pub fn mutant(self, mutant: Mutant) -> Self {
        self.variable("CHATVEC_MUTANT", mutant.name().to_owned())
    }

    /// The name by which the store knows the process; `None` if it has that of
    /// the fleet.
    pub(super) fn name(&self) -> Option<&str> {
        self.value("AWS_ACCESS_KEY_ID")
    }

    /// Where it looks for the store; `None` if where the fleet does.
    pub(super) fn endpoint(&self) -> Option<&str> {
        self.value("AWS_ENDPOINT_URL")
    }

    /// The value of a variable, the last that was given.
    fn value(&self, variable: &str) -> Option<&str> {
        let mut env = self.env.iter().rev();
        let found = env.find(|(name, _)| *name == variable);
        found.map(|(_, value)| value.as_str())
    }

    /// All of this, and of another setup, which comes later and counts.
    #[must_use]
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.env.extend(other.env.iter().cloned());
        Self {
            args: other.args.clone(),
            failpoints: other.failpoints.clone(),
            slots: other.slots,
            ..self
        }
    }

    pub(super) fn apply(&self, command: &mut Command) {
        command.args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.env("CHATVEC_FAILPOINT", &self.failpoints);
    }
}
