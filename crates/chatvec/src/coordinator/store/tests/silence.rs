//! A database behind a network that falls silent: nobody closes a connection,
//! and nothing arrives any more.

use std::future::pending;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::fixture::submitted;
use super::server::Server;
use crate::coordinator::store::Store;

/// After which a call counts as hanging: far less than the kernel takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// Passes bytes on in both directions until it falls silent; returns its port.
async fn relay(server: String, silence: watch::Receiver<bool>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (server, mut silence) = (server.clone(), silence.clone());
            tokio::spawn(async move {
                let mut far = TcpStream::connect(server).await.unwrap();
                let silent = async { drop(silence.wait_for(|is_silent| *is_silent).await) };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = silent => pending::<()>().await,
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_to_a_database_that_fell_silent_fails_in_time_and_so_does_a_transaction() {
    let server = Server::start().await;
    server.fresh_store("silent").await.close().await;
    let url = server.url_of("silent");
    let address = url.split(['@', '/']).nth(3).unwrap();
    let silence = watch::Sender::new(false);
    let port = relay(address.to_owned(), silence.subscribe()).await;
    let store = Store::open_postgres(&url.replace(address, &format!("127.0.0.1:{port}"))).await;
    let store = store.unwrap();
    let job = submitted(&store, "a").await;

    silence.send_replace(true);
    let (statement, transaction, closed) = tokio::join!(
        timeout(DEADLINE, store.jobs_to_plan()),
        timeout(DEADLINE, store.cancel_job(&job)),
        async {
            // By then there is nothing but calls that hang.
            let beyond = timeout(DEADLINE, store.jobs_to_commit()).await;
            (beyond, timeout(DEADLINE, store.close()).await)
        },
    );
    for error in [
        statement.expect("it does not hang").unwrap_err(),
        transaction.expect("it does not hang").unwrap_err(),
    ] {
        assert!(error.is_transient(), "{error}");
    }
    let (beyond, closed) = closed;
    assert!(beyond.expect("it does not hang").is_err());
    closed.expect("an end does not hang either");
}
