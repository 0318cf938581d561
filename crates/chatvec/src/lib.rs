//! The one program: coordinator, worker and command line.

pub mod coordinator;
pub mod storage;
pub mod worker;

pub mod cli {
    //! The command line: one module a sub-command.

    pub mod inspect;
}
