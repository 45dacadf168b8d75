// Package manifests tests what all manifests of deploy/kubernetes have in common.
package manifests
