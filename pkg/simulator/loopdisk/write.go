//go:build linux

package loopdisk

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

var _ simulator.DiskWriter = (*Plane)(nil)

// Write implements simulator.DiskWriter: the bytes of an import go to the beginning of the disk.
func (p *Plane) Write(ctx context.Context, storage string, from io.Reader) error {
	f, err := os.OpenFile(p.image(storage), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, untilDone{ctx, from})
	return errors.Join(err, f.Close())
}

// untilDone reads until its context ends.
type untilDone struct {
	ctx  context.Context
	from io.Reader
}

func (r untilDone) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.from.Read(b)
}
