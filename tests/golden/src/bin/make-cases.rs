//! Writes the cases. By hand made ones, which it doesn't know, stay.

fn main() {
    let cases = golden::make::all();
    for case in &cases {
        case.write(&golden::case::folder());
    }
    println!("{} cases written", cases.len());
}
