//go:build !unix

package simulator

import "os"

// lockFile opens the file: here nothing keeps two simulators apart.
func lockFile(path string) (*os.File, error) { return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) }
