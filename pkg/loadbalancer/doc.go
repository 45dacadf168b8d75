// Package loadbalancer keeps one UpCloud Managed Load Balancer for each Service of type LoadBalancer. It implements
// cloudprovider.LoadBalancer.
//
// It thinks in steps, all but the last without any I/O:
//
//	annotations      ParseSettings: Table and the JSON of AnnotationConfig become Settings, or Problems
//	desired state    DesiredState:  Service, Settings and Targets (nodes) become a Desired
//	difference       Diff:          a Desired and the load balancer as it is become Changes, each one call on one component
//	status           statusOf:      a load balancer becomes a Service's status
//	doing it         ensure, update, delete; certificates are made before the difference, as it needs their IDs
//
// What it must not do: replace a load balancer as a whole, or touch a component, property or label that it did not make
// or was not asked for. Its only memory is the API: which load balancer belongs to a Service is told by the label
// LabelServiceUID, and what was made for the Service by the notes in LabelComponents (see notes.go). So there are three
// versions to merge: what is wanted now, what there is, and (noted) what was wanted before.
//
// # For load balancers that several Services or clusters share
//
// A Desired is a set of components that all belong to one Service: Frontends, Backends, Rules and TLS configurations, each with one
// writer. Nothing in the differ's methods for one component (frontend, backend, rules, tls, members) knows that the rest of
// the load balancer is the Service's too; only Diff itself, and the methods called load, labels, addresses and the notes, do.
// Sharing builds on that:
//
//   - Names come from Input, by PortSettings.Name and FrontendName: give them the owner's prefix there, and Desired, Create and
//     the methods above work as they are. Rules name backends only by what Settings say.
//   - Who made a component is asked in few places: differ.ours, staleFrontend, staleBackend and stale, and Foreign. With
//     names that have their owner in them, those answer by the prefix, and no labels are needed.
//   - Change has no call on the whole load balancer but ModifyLoad; leave out load(), labels() and addresses() and there is none.
//   - A component that is claimed by its name is a Change with Create…; cloud.ErrAlreadyExists then says that somebody was first.
//   - keyedLocks take any key: lock the load balancer's ID beside the Service's UID.
package loadbalancer
