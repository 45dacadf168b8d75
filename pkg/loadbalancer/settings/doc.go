// Package settings reads what a Service asks of its load balancer.
//
//	Parse      the annotations become Settings, or Problems
//	Problems   what else in the Service UpCloud's load balancers cannot do
//	Remarks    what the Service asks for and does not get, without harm to the rest
//	Table      every annotation: the parser, its messages, the reference page and the admission policy are made from it
//
// It does no I/O and does not know the load balancer that there is. Types of pkg/cloud are all that it takes from there.
package settings
