"""Build of the ROS 2 package (ament_python), as colcon calls it."""

from setuptools import setup

setup(
    name="cvgl_ros",
    version="0.1.0",
    packages=["cvgl_ros", "cvgl_ros.dds"],
    package_data={"cvgl_ros": ["py.typed", "localizer.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/cvgl_ros"]),
        ("share/cvgl_ros", ["package.xml", "README.md"]),
        ("share/cvgl_ros/launch", ["launch/localizer.launch.py"]),
        ("share/cvgl_ros/config", ["cvgl_ros/localizer.yaml", "config/robot_localization.yaml"]),
        ("share/cvgl_ros/docs", ["docs/robot_localization.md", "docs/px4.md", "docs/ardupilot.md"]),
        ("share/cvgl_ros/rviz", ["rviz/localizer.rviz"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="cvgl maintainers",
    maintainer_email="maintainers@example.org",
    description="Visual localization without GPS, published as NavSatFix and poses",
    license="Apache-2.0",
    entry_points={"console_scripts": ["localizer = cvgl_ros.node:main"]},
)
