// Package plan says what has to be done on a load balancer. It is all pure functions: it does no I/O, and remembers nothing.
//
//	DesiredState   Service, settings, nodes (Targets) and Pods become a Desired
//	Diff           a Desired and the load balancer as it is become Changes, each one call on one component
//	SharedState, ShareDiff   the same for a load balancer that several Services use
//	ChoosePlacement          where a new load balancer goes
//	StatusOf                 what is published of a load balancer
//	Identity.Owns, Cluster.TraceOf   whose a load balancer, a component or a certificate bundle is
//
// What was made for a Service is noted in labels of its load balancer (notes.go), and told by names on a shared one (shared_names.go).
package plan
