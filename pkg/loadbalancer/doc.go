// Package loadbalancer keeps one UpCloud Managed Load Balancer for each Service of type LoadBalancer. It implements
// cloudprovider.LoadBalancer.
//
// It works on three floors, of which only the last does I/O:
//
//	settings       annotations become Settings, or Problems
//	plan           Settings, nodes and the load balancer as it is become Changes, each one call on one component
//	loadbalancer   finds the load balancer, makes its certificates and the changes, and reports what came of it
//
// What it must not do: replace a load balancer as a whole, or touch a component, property or label that it did not make
// or was not asked for. Its only memory is the API: which load balancer belongs to a Service is told by the label
// settings.LabelServiceUID, and what was made for the Service by the notes in settings.LabelComponents (see plan/notes.go). So there are three
// versions to merge: what is wanted now, what there is, and (noted) what was wanted before. How far a
// node is in joining is told by the members themselves (see joining.go).
//
// What somebody else does to a load balancer is noticed by drift.go: a list, compared in memory with what is desired. What came of all
// this is said in the Service's status by conditions.go. Who looks for leftovers (pkg/doctor) reads in plan/owner.go whose a thing is.
//
// # Load balancers that several Services or clusters share
//
// The files shared*.go are about those. A Service's components there are told by their names (plan/shared_names.go) and not by notes;
// SharedState and ShareDiff take the place of DesiredState and Diff; and changes are made through cloud.SharedLoadBalancer, which
// has no call on a load balancer as a whole.
package loadbalancer
