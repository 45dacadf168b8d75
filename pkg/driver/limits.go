package driver

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded"
)

// Limits on a request, which are checked before anything of it is read. docs/security.md lists them. What a request holds was
// written by users, in StorageClasses, PersistentVolumes and the like, which Kubernetes' sidecars pass on.
const (
	maxString  = 4 << 10  // bytes of a text: PATH_MAX of Linux
	maxEntries = 512      // of a map: as many as Kubernetes lets a StorageClass have
	maxMap     = 64 << 10 // bytes of the keys and values of a map
	maxSecrets = 2 << 20  // the same of secrets, as Kubernetes stores Secrets of up to 1 MiB
	maxList    = 1000     // elements
	maxFlags   = 4 << 10  // bytes of all mount options: a page, which is what mount(2) takes
)

// limit refuses requests that are beyond a limit.
func (d *Driver) limit(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if message, ok := req.(proto.Message); ok {
		if err := checkLimits(message.ProtoReflect()); err != nil {
			return nil, err
		}
	}
	return next(ctx, req)
}

// checkLimits finds the first field of a message, or of one within it, that is beyond a limit.
func checkLimits(message protoreflect.Message) (refused error) {
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		var err error
		switch name := string(field.Name()); {
		case field.IsMap():
			err = checkMap(name, value.Map())
		case field.IsList():
			if err, refused = checkList(name, field, value.List()); refused != nil {
				return false
			}
		case field.Kind() == protoreflect.MessageKind:
			refused = checkLimits(value.Message())
		case field.Kind() == protoreflect.StringKind:
			err = bounded.Text(value.String(), maxString)
		}
		if err != nil {
			refused = invalid(string(field.Name()), "%v", err)
		}
		return refused == nil
	})
	return refused
}

func checkMap(name string, values protoreflect.Map) error {
	if err := bounded.Count(values.Len(), maxEntries, "entries"); err != nil {
		return err
	}
	most, size := maxMap, 0
	if name == "secrets" {
		most = maxSecrets
	}
	values.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		size += len(key.String())
		if text, ok := value.Interface().(string); ok {
			size += len(text)
		}
		return true
	})
	return bounded.Size(size, most)
}

// checkList returns what is wrong with the list, or with a message in it.
func checkList(name string, field protoreflect.FieldDescriptor, values protoreflect.List) (err, within error) {
	if err := bounded.Count(values.Len(), maxList, "elements"); err != nil {
		return err, nil
	}
	size := 0
	for i := range values.Len() {
		switch field.Kind() {
		case protoreflect.MessageKind:
			if err := checkLimits(values.Get(i).Message()); err != nil {
				return nil, err
			}
		case protoreflect.StringKind:
			size += len(values.Get(i).String())
		}
	}
	if name == "mount_flags" {
		return bounded.Size(size, maxFlags), nil
	}
	return bounded.Size(size, maxMap), nil
}
