// Package simulator is a local UpCloud: the API under /1.3, the instance metadata service, and behind them servers,
// storages, networks and load balancers that pass through the states the real ones pass through.
//
// Ground truth, in this order: the API traffic recorded inside the official Go SDK's module, the SDK's types and live
// tests, the public API documentation. Where nothing says how the API behaves, the harsher behaviour is chosen;
// docs/simulator.md lists those choices.
//
// The package knows HTTP, JSON and the rules of the API. It knows nothing of Kubernetes, CSI or of the programs that it
// is used to test, and nothing but tests and cmd/upcloud-sim may import it. Real disks and real load balancers stand
// behind the interfaces DiskPlane and LoadBalancerPlane; without them the API is complete, and no byte moves.
//
// All state is guarded by one lock. A handler runs with the lock held and never blocks; what takes time is an event on
// the simulator's clock, or an operation whose slow part runs in a goroutine that Close waits for.
package simulator
