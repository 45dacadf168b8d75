// Package sidecars holds the driver's error codes against the sidecars' own code, at the versions that the manifests deploy:
// what external-provisioner, external-attacher, external-resizer and external-snapshotter make of every kind of error in
// every RPC. It is a module of its own, so that what the sidecars need is not the product's.
package sidecars
