// Package driver speaks CSI: requests in, status codes out. It checks what the caller asked for against the CSI
// specification, asks pkg/cloud (the controller) or pkg/disk (the node) in their own words, and turns their errors
// into status codes in one place (errors.go).
//
// It knows no API of UpCloud's and no system call. The node service never talks to the UpCloud API, so nodes need no
// credentials. It keeps no state: what a call needs is in its request, in the account, or on the machine.
package driver
