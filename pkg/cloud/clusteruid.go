package cloud

// SetClusterUID says which cluster storages are made for from now on: the UID of its namespace kube-system. It becomes the label
// csi-cluster-uid, in the same request as the other labels, so that it costs no call. Storages are not looked up by it: those made
// before it was known stay the cluster's. Empty: no such label. Errors: ErrInvalid for what cannot be a label.
func (c *Cloud) SetClusterUID(uid string) error {
	if err := checkLabel(LabelClusterUID, uid); err != nil {
		return err
	}
	c.clusterUID.Store(&uid)
	c.own.forget() // whose the volumes are that were seen before may be answered otherwise now
	return nil
}

// ClusterUID returns what SetClusterUID was given, empty before.
func (c *Cloud) ClusterUID() string {
	if uid := c.clusterUID.Load(); uid != nil {
		return *uid
	}
	return ""
}

func (c *Cloud) clusterUIDLabel() map[string]string {
	uid := c.ClusterUID()
	if uid == "" {
		return nil
	}
	return map[string]string{LabelClusterUID: uid}
}
