//! Two folders with the stack on one machine.

use std::fs;

use crate::stack::Stack;
use crate::told::case;

#[test]
fn no_folder_takes_over_what_another_one_runs() {
    let stack = Stack::new("folders");
    let other = Stack::new("other");

    case(
        "make env",
        "each folder gets a project name of its own",
        || {
            let named: Vec<String> = [&stack, &other].map(generated_name).to_vec();
            assert_ne!(named[0], named[1]);
            for name in named {
                assert!(name.starts_with("sessionkeep-"), "{name}");
            }
        },
    );

    case(
        "a name that another folder's containers have",
        "every command that would touch them is refused, and names that folder",
        || {
            stack.up(&["mongodb"]);
            let before = stack.container("mongodb").id;
            other.set("COMPOSE_PROJECT_NAME", stack.project());
            let folder = stack.tree().display().to_string();
            for args in [
                &["up"][..],
                &["down"],
                &["restart"],
                &["clean", "YES=yes"],
                &["prune", "YES=yes"],
                &["mongo-init"],
            ] {
                let said = other.try_make(args);
                let text = said.text();
                assert!(said.code != 0 && text.contains(&folder), "{args:?}: {text}");
                assert!(text.contains("COMPOSE_PROJECT_NAME="), "{args:?}: {text}");
            }
            assert_eq!(stack.container("mongodb").id, before);
            assert!(!other.path("session").exists(), "something was begun");
        },
    );

    case(
        "a folder that was moved",
        "its containers are still its own",
        || {
            let moved = stack.tree().with_file_name("moved");
            fs::rename(stack.tree(), &moved).expect("move the folder");
            let said = run_make(&stack, &moved, "ps");
            fs::rename(&moved, stack.tree()).expect("move it back");
            assert!(
                said.code == 0 && said.out.contains("mongodb"),
                "{}",
                said.text()
            );
        },
    );
}

fn generated_name(stack: &Stack) -> String {
    let (env, kept) = (stack.path(".env"), stack.path("env.kept"));
    fs::rename(&env, &kept).expect("put .env away");
    stack.make(&["env"]);
    let name = stack.get("COMPOSE_PROJECT_NAME");
    fs::rename(&kept, &env).expect("put it back");
    name
}

fn run_make(stack: &Stack, folder: &std::path::Path, target: &str) -> crate::run::Said {
    let mut command = stack.command("make");
    command.current_dir(folder);
    command.args(["--no-print-directory", target]);
    crate::run::run(&mut command, std::time::Duration::from_secs(180))
}
