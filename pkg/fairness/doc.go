// Package fairness shares out a controller's work on Services between namespaces: the Services of one namespace do not delay those of
// another, however many there are, however large, and however often they change.
//
// It is put around the service controller of k8s.io/cloud-provider (Controller), whose queue is first in, first out: whoever has many
// Services in it delays all others. Nothing of the library is changed:
//
//	turns.go       Turns: which object may be worked on now; the others come back, in the order in which they first came
//	pace.go        how often one object is worked on
//	controller.go  Controller: asks Turns when the library's workers read a Service, before they do anything else
//	nodes.go       changes of nodes, which the library has for all Services at one time
//	events.go      Continues: work that is done in steps, of which no event says that it failed
//	order.go       Order: a work queue that is fair by namespace, for other controllers
//
// The requests to the cloud's API are shared out by cloud.WithShare.
package fairness
