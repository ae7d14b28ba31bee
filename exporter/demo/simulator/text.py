"""The lines that ``tps_env`` prints before and after its batches, in order, from captured logs.

A line begins with the way it is printed: ``E`` by ``std::cout`` and ``std::endl`` (flushes the buffer), ``p`` by
``printf`` (stays in the buffer), ``~`` a pause, as a share of the loading time. The engine fills in ``{fields}``;
``{_}`` is a blank at the end of a line.
"""

SMC_PROCESS = """\
E {wide_rule}
E MOQUI SMC Treatment machine model and log-file based MC
E Modified by Chanil Jeon of Sungkyunkwan University in 2024
E Version : v1.0.8 (2024-08-27)
E Starting process of loading basic information..
E {wide_rule}
E Reading GPU ID.. : Selected GPU ID --> 0
E Reading seeds.. : Inserted seed --> {seed}
"""
SMC_TIME_SEED = """\
E Reading seeds.. : Using negative value generates current time based random seed.
"""
SMC_CASE = """\
E Selected gantry number : 2
E Reading patient directory.. : Patient directory name --> {case_directory}
E Reading masking file.. : There is no masking file to read.
E Setting output.. : Output directory name --> {output_directory}
E Setting output.. : Output format --> mhd
E Reading DICOM directory.. : DICOM directory name --> {case_directory}/plan
~ 0.2
E Reading DICOM directory.. : Loading RT Ion plan data from {case_directory}/plan/RP.synth.dcm ..
E Creating treatment machine model.. : Machine name --> G2
E Creating treatment machine model.. : MC code version -->{_}
E Creating treatment machine model.. : Creating SMC treatment machine model..
"""
SMC_BEAM = """\
E {rule}
E Starting process of creating world geometry and beam models..
E {rule}
E Creating beam line object.. : RT Plan type --> RT ION
E Creating beam line object.. : Beam ID --> {beam}
"""
SMC_GEOMETRY = """\
E Creating beam line object.. : Number of range shifter sequence --> 0
E Creating beam line object.. : Number of blocks --> 0
E Creating child in world geometry.. : Phantom size -->
E (x, y, z) -> (40, 40, 40)
E Creating world geometry complete!
E Creating beam source object.. : Detected beam count --> {plan_beams}
E Creating beam source object.. : Currently selected beam --> {beam} (B{beam})
E Creating beam source object.. : Detected snout position --> 465 mm
E Creating coordinate transform for beam source complete.. : p_coord angle information -- >
E (0, 0, 0, 0)
E Creating coordinate transform for beam source complete.. : Translation information -- >{_}
"""
SMC_ROTATION_CPU = """\
E (x, y, z) -> (0, 0, 0){_}
E Creating coordinate transform for beam source complete.. : Rotation information -- >{_}
E (xx, xy, xz) -> (1 0 0)
E (yx, yy, yz) -> (0 1 0)
E (zx, zy, zz) -> (0 0 1)
"""
SMC_ROTATION_GPU = """\
p (x, y, z) -> (0.000000, 0.000000, 0.000000)
E Creating coordinate transform for beam source complete.. : Rotation information -- >{_}
p (xx, xy, xz) -> (1.000000, 0.000000, 0.000000)
p (yx, yy, yz) -> (0.000000, 1.000000, 0.000000)
p (zx, zy, zz) -> (0.000000, 0.000000, 1.000000)
"""
SMC_LOG_FILES = """\
E {rule}
E Starting process of loading log files..
E {rule}
p Reading log file directory.. : Directory name --> {case_directory}/log
~ 0.5
"""
SMC_FIELD_FILES = """\
E Reading log file information in the field directory.. : {case_directory}/log/Field{beam}/1_100MeV.csv..
E Reading log file information in the field directory.. : {case_directory}/log/Field{beam}/2_105MeV.csv..
E Reading log file information in the field directory.. : {case_directory}/log/Field{beam}/3_110MeV.csv..
E Reading log file information in the field directory.. : {case_directory}/log/Field{beam}/4_115MeV.csv..
E Reading log file information for beam {beam} is complete!
"""
SMC_BEAM_SOURCE = """\
E Total beamlets (Spots) : {spots}
E Total histories (Particles) : {histories}
E Creating beam source complete!
"""
SMC_NODES_CPU = """\
~ 0.3
p Node specification of CPU printing.. : X --> -600.000 to 600.000{_}
p Node specification of CPU printing.. : Y --> -600.000 to 600.000{_}
p Node specification of CPU printing.. : Z --> -780.000 to 420.000{_}
p Node specification of CPU printing.. : Phantom position --> (0, 0, 0): 0.000000
p Node specification of CPU printing.. : Number of children --> 2
p Node specification of CPU printing.. : X --> -200.000 to 200.000{_}
p Node specification of CPU printing.. : Y --> -200.000 to 200.000{_}
p Node specification of CPU printing.. : Z --> 20.000 to 465.000{_}
p Node specification of CPU printing.. : Phantom position --> (0, 0, 0): 0.000001
p Node specification of CPU printing.. : Number of children --> 0
p Node specification of CPU printing.. : X --> -200.000 to 200.000{_}
p Node specification of CPU printing.. : Y --> -200.000 to 200.000{_}
p Node specification of CPU printing.. : Z --> -380.000 to 20.000{_}
p Node specification of CPU printing.. : Phantom position --> (0, 0, 0): 0.001000
p Node specification of CPU printing.. : Number of children --> 0
"""
SMC_NODES_GPU = """\
E {rule}
E Starting process of creating and uploading node to GPU..
E {rule}
p Uploading data to node.. : Allocated node --> {node}
p Uploading data to node.. : g_node --> {node}, d_children --> {children}, h_children[0] --> {child_0}
p Uploading data to node.. : g_node --> {node}, d_children --> {children}, h_children[1] --> {child_1}
p Uploading data to node.. : Allocated node --> {child_0}
p Uploading data to node.. : Allocated node --> {child_1}
~ 0.3
"""
SMC_START = """\
E {rule}
E Starting process of Monte Carlo simulation..
E {rule}
"""
SMC_FINALIZE_CPU = """\
p Starting to download node data from GPU..
p Simlulation finalizing..
"""
SMC_FINALIZE_GPU = """\
p Starting to download node data from GPU..
p Downloading node data.. : Number of scorers --> 0
p Simlulation finalizing..
"""

MOQUI_PROCESS = """\
p master seed {seed}
E {case_directory}
p dicom dir {case_directory}/plan
p ct name:{_}
~ 0.4
E CT (nx,ny,nz): (24, 24, 24)
E CT (dx,dy,dz): (12.5, 12.5, 12.5)
E CT (x,y,z): (-143.75, -143.75, -143.75)
"""
MOQUI_PLAN = """\
p Paitient's CT loaded
p There are multiple RTPLANs in the path. Selecting the first one
p Loading RT Ion plan from {case_directory}/plan/RP.synth.dcm
p {case_directory}/plan/RP.synth.dcm
p machine force selection PBS:/data/moqui/pbs_model.txt
E machine_name: PBS:/data/moqui/pbs_model.txt, calibration: default
p pbs : /data/moqui/pbs_model.txt
p Creating a generic PBS machine from : /data/moqui/pbs_model.txt
p [geometry]
p SAD(mm) : 2597, 2223
p rangeshifter(mm) : 400, 400
p rangeshifter_snout_gap(mm) : 50, 0
p aperture(mm) : 400, 400
p [spot]
p [geometry]
p SAD(mm) : 2597, 2223
p rangeshifter(mm) : 400, 400
p rangeshifter_snout_gap(mm) : 50, 0
p aperture(mm) : 400, 400
p [spot]
p Default calibration curve is set
p n fraction 30 rbe 1.100000
"""
MOQUI_SELECTION = """\
p Number of beam selected 1
p The first selected beam number {first_selected}
"""
MOQUI_BEAM = """\
p bnb {beam} seed {beam_seed}
p initialization
E number of range shifter: 0
E number of blocks: 0
E create_coordinate_transform:
p dcm dim 24 24 24
"""
MOQUI_ONE_SCORER = """\
p total scorer 1 current scorer 1
"""
MOQUI_STAT_SCORERS = """\
p !!!!!!!!!!!!!!!!!!!!!!!!! WARNING !!!!!!!!!!!!!!!!!!!!!!!!!!!!
p Statistical ROI is set to entire patient.
p This might decrease the performance of the simulation
p Please, considering set an ROI for statistical criteria
p !!!!!!!!!!!!!!!!!!!!!!!!! WARNING !!!!!!!!!!!!!!!!!!!!!!!!!!!!
p total scorer 3 current scorer 1
p total scorer 3 current scorer 2
"""
MOQUI_SOURCE = """\
~ 0.3
p setup world done
p Default calibration curve is set
p There are {plan_beams} beams
p Selecting {beam}: B{beam}
p sid 515.000000
E create_coordinate_transform:
p p_coord 0.000000 0.000000 -0.000000 90.000000
"""
MOQUI_ROTATION_CPU = """\
E translationx,y,z: (0, 0, 0){_}
E rotation xx,xy,xz 1 0 0
E yx,yy,yz -0 -4.37114e-08 -1
E zx,zy,zz 0 1 -4.37114e-08
"""
MOQUI_ROTATION_GPU = """\
p translationx,y,z: (0.000000, 0.000000, 0.000000)
p rotation xx,xy,xz 1.000000, 0.000000, 0.000000
p yx,yy,yz -0.000000, -0.000000, -1.000000
p zx,zy,zz 0.000000, 1.000000, -0.000000
"""
MOQUI_PARTICLES = """\
p beamlets {spots}
p histories {histories}
"""
MOQUI_NODES_CPU = """\
p X:{_}
p -550.000 ... 550.000
p Y:{_}
p -550.000 ... 550.000
p Z:{_}
p -550.000 ... 550.000
p From phantom: (0, 0, 0): 0.000000
p child node of world: 0, {child_0}
p X:{_}
p -150.000 -137.500 -125.000 -112.500 -100.000 ... 87.500 100.000 112.500 125.000 137.500 150.000{_}
p Y:{_}
p -150.000 -137.500 -125.000 -112.500 -100.000 ... 87.500 100.000 112.500 125.000 137.500 150.000{_}
p Z:{_}
p -150.000 -137.500 -125.000 -112.500 -100.000 ... 87.500 100.000 112.500 125.000 137.500 150.000{_}
p From phantom: (0, 0, 0): 0.000011
"""
MOQUI_NODES_GPU = """\
p gnode: {node}
p g_node: {node}, d_children:{children}, h_children[0]:{child_0}
p n_children 1
p gnode: {child_0}
"""
MOQUI_CAPACITY = """\
p max capacity 13824
"""
MOQUI_MATERIAL_GPU = """\
p n_children 0
p upload material
p world: {world}, mc_world: {node}, size(node_t): 72
"""
MOQUI_START = """\
~ 0.3
p Initialization for geometry done {geometry_tenths:f} s
p scorer {garbage} sim type {simulation_type}
"""
MOQUI_GPU_MEMORY = """\
p Geometry occupies 0.577420 GB
"""
MOQUI_FINALIZE_CPU = """\
p finalizing
p finalizing
p max capacity 13824
"""
MOQUI_FINALIZE_GPU = """\
p finalizing
p n_scorers: 0, (nil)
p finalizing
p max capacity 13824
"""

EXCEPTION = """\
terminate called after throwing an instance of '{type}'
  what():  {what}"""
ASSERTION = (
    "tps_env: /opt/build/moqui/base/mqi_po_elastic.hpp:180: void mqi::po_elastic<R>::post_step(mqi::track_t<R>&, "
    "mqi::track_stack_t<R>&, mqi::mqi_rng*, R, mqi::material_t<R>&, bool) [with R = float; mqi::mqi_rng = "
    "std::linear_congruential_engine<long unsigned int, 16807, 0, 2147483647>]: "
    "Assertion `dE >= 0 && dE <= Tp_max' failed."
)
ENVIRONMENT_SOURCE = "/opt/build/moqui/base/environments/mqi_tps_env.hpp"
