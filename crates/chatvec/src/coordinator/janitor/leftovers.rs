//! What jobs leave in storage: unfinished files, uploads that nobody completes,
//! and objects of a commit that failed. Only what is provably a job's own goes:
//! named by a row of the job store, and, where it is an object, bearing the
//! job's nonce. No prefix is ever swept.

use std::collections::BTreeMap;

use chatvec_core::ids::JobId;
use chatvec_core::manifest::{self, FILE_NAME as MANIFEST_NAME};

use crate::coordinator::Resources;
use crate::coordinator::store::{Store, StoreError, UploadRow, UploadState};
use crate::fault::{self, Failpoint};
