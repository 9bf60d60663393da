package query

import "google.golang.org/protobuf/reflect/protoreflect"

// clearLocations takes the positions out of a tree.
func clearLocations(m protoreflect.Message) {
	if !m.IsValid() {
		return
	}
	if fd := m.Descriptor().Fields().ByName("location"); fd != nil && fd.Kind() == protoreflect.Int32Kind {
		m.Clear(fd)
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() != protoreflect.MessageKind {
			return true
		}
		if !fd.IsList() {
			clearLocations(v.Message())
			return true
		}
		for i := range v.List().Len() {
			clearLocations(v.List().Get(i).Message())
		}
		return true
	})
}
