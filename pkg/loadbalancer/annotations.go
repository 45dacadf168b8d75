package loadbalancer

// Annotations on a Service, as UpCloud's own CCM has them.
const (
	// AnnotationID is written when a load balancer was made: its UUID. It saves the search, and is believed only when the
	// labels of that load balancer prove it to be the Service's: an annotation is easily copied or restored with a Service.
	AnnotationID = "service.beta.kubernetes.io/upcloud-load-balancer-id"

	// AnnotationName is written when a load balancer was made: its name. It is never read.
	AnnotationName = "service.beta.kubernetes.io/upcloud-load-balancer-name"

	// AnnotationConfig holds a load balancer's configuration as JSON. It is not understood yet; a Service that has it is
	// refused, because to ignore it could publish what was meant to be private.
	AnnotationConfig = "service.beta.kubernetes.io/upcloud-load-balancer-config"

	// AnnotationNodeSelector selects the nodes that become members. It is not understood yet; a Service that has it is
	// refused, because to ignore it could send traffic where it was not to go.
	AnnotationNodeSelector = "service.beta.kubernetes.io/upcloud-load-balancer-node-selector"
)

// Labels on a load balancer.
const (
	// LabelClusterID is the cluster's ID, if it has one.
	LabelClusterID = "ccm_cluster_id"

	// LabelClusterName is the cluster's name.
	LabelClusterName = "ccm_cluster_name"

	// LabelGeneratedName is the name that follows from the Service, whatever the load balancer is called now.
	LabelGeneratedName = "ccm_generated_name"

	// LabelTrafficPolicy is the Service's externalTrafficPolicy.
	LabelTrafficPolicy = "ccm_external_traffic_policy"

	// LabelServiceUID is the Service's UID: the proof that a load balancer is this Service's, and the way to find it.
	// UpCloud's own CCM does not set it; it is added to the load balancers taken over.
	LabelServiceUID = "ccm_service_uid"

	// LabelComponents lists digests of the names of the frontends and backends that were made for the Service's ports, so
	// that those of a port that is no longer there can be told from those that somebody else added.
	LabelComponents = "ccm_components"
)
