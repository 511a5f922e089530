//! Leaving the regions up for whoever wants to try them.

use tokio::signal::unix::{SignalKind, signal};

use super::cluster::Endpoints;

/// Waits until the process is asked to end.
pub async fn interrupted() {
    let mut asked = match signal(SignalKind::terminate()) {
        Ok(asked) => asked,
        Err(error) => {
            tracing::warn!(%error, "cannot be ended by a signal");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = asked.recv() => {}
        pressed = tokio::signal::ctrl_c() => {
            if let Err(error) = pressed {
                tracing::warn!(%error, "cannot be ended by Ctrl-C");
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Says where the regions are and what to try; on standard error if standard output is for JSON.
pub fn invite(endpoints: &[Endpoints], json: bool) {
    let text = invitation(endpoints, &program());
    if json { eprintln!("{text}") } else { println!("{text}") }
}

/// How to call this program again: it need not be where the shell looks for programs.
fn program() -> String {
    let path = std::env::current_exe().ok().filter(|path| path.to_str().is_some());
    let path = path.map_or_else(|| "anabranch".to_owned(), |path| path.display().to_string());
    match path.contains(|c: char| !c.is_ascii_alphanumeric() && !"/._-+".contains(c)) {
        true => format!("'{}'", path.replace('\'', r"'\''")),
        false => path,
    }
}

fn invitation(endpoints: &[Endpoints], program: &str) -> String {
    let mut text = String::from("The regions stay up. Endpoints:\n");
    for region in endpoints {
        text.push_str(&format!("  {:<12} {}\n", region.region.as_str(), region.nodes.join(" ")));
    }
    let (Some(first), Some(last)) = (endpoints.first(), endpoints.last()) else { return text };
    let (here, there) = (&first.nodes[0], &last.nodes[0]);
    let all: Vec<String> = endpoints.iter().map(|r| format!("--endpoint {}", r.nodes[0])).collect();
    text.push_str(&format!(
        "\nTry:\n  \
         {program} append cart-1 ItemAdded --data '{{\"item\":\"tea\"}}' --endpoint {here}\n  \
         {program} read --stream cart-1 --order global --endpoint {there}\n  \
         {program} verify {}\n\nCtrl-C ends.",
        all.join(" ")
    ));
    text
}

#[cfg(test)]
mod tests {
    use anabranch_core::RegionName;

    use super::*;

    #[test]
    fn the_invitation_names_every_endpoint_and_crosses_regions() {
        let region = |name: &str, ports: [u16; 2]| Endpoints {
            region: RegionName::new(name).unwrap(),
            nodes: ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect(),
        };
        let endpoints = [region("eu", [7101, 7102]), region("us", [7201, 7202])];
        let text = invitation(&endpoints, "/opt/anabranch");
        assert_eq!(text.matches("\n  /opt/anabranch ").count(), 3, "each can be copied: {text}");
        for port in [7101, 7102, 7201, 7202] {
            assert!(text.contains(&format!("http://127.0.0.1:{port}")), "{text}");
        }
        assert!(
            text.contains("ItemAdded --data '{\"item\":\"tea\"}' --endpoint http://127.0.0.1:7101")
        );
        assert!(text.contains("--order global --endpoint http://127.0.0.1:7201"), "{text}");
    }
}
