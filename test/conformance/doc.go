// Conformance holds the simulator against the official Go SDK's module, which nobody here wrote, in two parts.
//
// Part one runs the SDK's own live tests against upcloud-sim, over HTTPS. Part two sends the requests of the recordings
// that the module ships, made of the real API, to a simulator in this process and compares the answers.
//
// It knows the SDK's tests and recordings by where they lie; what an answer should be it takes from them alone. What is
// known to differ stands in known-differences.yaml, each with its reason, and is counted apart.
package main
